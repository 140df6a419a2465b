//! Whether an upstream is worth trying: closed, open, half open.
//!
//! One breaker per class of operation, so that a broken create does not stop reads. Closed counts
//! failures inside a window; enough of them open it for a while; then one call may probe, and its
//! outcome decides.
//!
//! A create never probes: a failed probe may have made an account. Its breaker waits for a sign of
//! life from another class since it opened, or from the token call that a refused create asks for,
//! and is then closed on trial, so that one failure opens it again. Over a reload what is known stays, and
//! the new numbers count from then on; over another way to upstream an open one may find out at once. Reads tokio's clock and nothing else, and logs when one opens or
//! closes; refusing, and making that token call, are the layer's affair.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::config;
use crate::dialect::OperationKind;

/// What shares a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Token calls.
    Token,
    /// Creates.
    Create,
    /// Updates.
    Update,
    /// Inquiries and gets.
    Read,
}

impl Class {
    /// All, in the order of [`Breakers`].
    pub const ALL: [Self; 4] = [Self::Token, Self::Create, Self::Update, Self::Read];

    /// The class of an operation.
    #[must_use]
    pub const fn of(kind: OperationKind) -> Self {
        match kind {
            OperationKind::Create => Self::Create,
            OperationKind::Update => Self::Update,
            OperationKind::Read => Self::Read,
        }
    }

    /// Name in `/status`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Create => "create",
            Self::Update => "update",
            Self::Read => "read",
        }
    }
}

/// What a call showed of upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It answered.
    Alive,
    /// It could not be reached, was too slow, broke off, or something before it answered.
    Dead,
    /// The call never got as far as upstream, and upstream is not to blame.
    Nothing,
}

/// What a call may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Go; its sign must be [`record`](Breakers::record)ed.
    Go,
    /// Stay.
    Stay,
    /// Stay, and have a safe call made: this class may not probe for itself.
    StayAndProbe,
}

/// A breaker per class.
#[derive(Debug)]
pub struct Breakers {
    token: Breaker,
    create: Breaker,
    update: Breaker,
    read: Breaker,
}

impl Breakers {
    /// All closed.
    #[must_use]
    pub fn new(settings: &config::Breaker) -> Self {
        let breaker = |class, probe| Breaker::new(settings.clone(), class, probe);
        Self {
            token: breaker(Class::Token, Probe::Own),
            create: breaker(Class::Create, Probe::Elsewhere),
            update: breaker(Class::Update, Probe::Own),
            read: breaker(Class::Read, Probe::Own),
        }
    }

    /// The same with other numbers: whoever still works by the old ones goes on learning for both.
    #[must_use]
    pub fn renewed(&self, settings: &config::Breaker) -> Self {
        let Self { token, create, update, read } = self;
        Self {
            token: token.renewed(settings),
            create: create.renewed(settings),
            update: update.renewed(settings),
            read: read.renewed(settings),
        }
    }

    /// The same over another way to the same upstream: since the way may be what was wrong, what is open may
    /// find out at once, and calls that still go the old way say nothing of the new one.
    #[must_use]
    pub fn over_another_way(&self, settings: &config::Breaker) -> Self {
        let Self { token, create, update, read } = self;
        Self {
            token: token.over_another_way(settings),
            create: create.over_another_way(settings),
            update: update.over_another_way(settings),
            read: read.over_another_way(settings),
        }
    }

    /// Whether a call of a class may go now.
    #[must_use]
    pub fn admit(&self, class: Class, now: Instant) -> Gate {
        self.of(class).admit(now)
    }

    /// Learns from a call that was admitted; whoever answers it is alive for creates too.
    pub fn record(&self, class: Class, sign: Sign, now: Instant) {
        self.of(class).record(sign, now);
        if class != Class::Create && sign == Sign::Alive {
            self.create.vouch();
        }
    }

    /// `closed`, `open` or `half_open`, for `/status`.
    #[must_use]
    pub fn state(&self, class: Class, now: Instant) -> &'static str {
        self.of(class).state(now)
    }

    const fn of(&self, class: Class) -> &Breaker {
        match class {
            Class::Token => &self.token,
            Class::Create => &self.create,
            Class::Update => &self.update,
            Class::Read => &self.read,
        }
    }
}

/// Who finds out whether an open breaker may close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// One of its own calls.
    Own,
    /// Calls of other classes.
    Elsewhere,
}

/// One breaker.
#[derive(Debug)]
struct Breaker {
    settings: config::Breaker,
    class: Class,
    probe: Probe,
    /// One for all configurations with one way to upstream.
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
enum State {
    /// Times of the latest failures, the oldest first; fewer than `failures`, unless that has just become
    /// smaller.
    Closed(VecDeque<Instant>),
    /// Closed on another class's word: the next call decides.
    Trial,
    Open {
        /// When it opened; nothing where the next call may find out at once.
        since: Option<Instant>,
        /// Whether another class has been answered since.
        vouched: bool,
    },
    /// A probe, wherever it is made, is under way since then.
    Probing { since: Instant },
}

impl State {
    const fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::Probing { .. })
    }
}

impl Breaker {
    fn new(settings: config::Breaker, class: Class, probe: Probe) -> Self {
        Self { settings, class, probe, state: Arc::new(Mutex::new(State::Closed(VecDeque::new()))) }
    }

    fn renewed(&self, settings: &config::Breaker) -> Self {
        Self { settings: settings.clone(), class: self.class, probe: self.probe, state: Arc::clone(&self.state) }
    }

    fn over_another_way(&self, settings: &config::Breaker) -> Self {
        let state = match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Closed(failures) => State::Closed(failures.clone()),
            State::Trial => State::Trial,
            // Whoever was answered was so on the old way: a create waits for a sign of life on the new one.
            State::Open { .. } | State::Probing { .. } => State::Open { since: None, vouched: false },
        };
        let state = Arc::new(Mutex::new(state));
        Self { settings: settings.clone(), class: self.class, probe: self.probe, state }
    }

    /// Whether one that opened then is still to be left alone.
    fn is_waiting(&self, since: Option<Instant>, now: Instant) -> bool {
        since.is_some_and(|since| now < since + self.settings.open_for)
    }

    /// Takes a step and says in the log where it opened or closed the breaker; a probe that fails leaves
    /// it as it was.
    fn step<T>(&self, step: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let was_open = state.is_open();
        let done = step(&mut state);
        let is_open = state.is_open();
        drop(state);
        match (was_open, is_open) {
            (false, true) => tracing::warn!(class = self.class.name(), "a breaker opened"),
            (true, false) => tracing::warn!(class = self.class.name(), "a breaker closed"),
            (false, false) | (true, true) => {}
        }
        done
    }

    fn admit(&self, now: Instant) -> Gate {
        self.step(|state| self.admit_in(state, now))
    }

    fn admit_in(&self, state: &mut State, now: Instant) -> Gate {
        match *state {
            State::Closed(_) | State::Trial => return Gate::Go,
            State::Open { since, .. } if self.is_waiting(since, now) => return Gate::Stay,
            // A probe whose caller vanished must not keep it open for ever.
            State::Probing { since } if self.is_waiting(Some(since), now) => return Gate::Stay,
            State::Open { vouched: true, .. } if self.probe == Probe::Elsewhere => {
                *state = State::Trial;
                return Gate::Go;
            }
            State::Open { .. } | State::Probing { .. } => {}
        }
        *state = State::Probing { since: now };
        match self.probe {
            Probe::Own => Gate::Go,
            Probe::Elsewhere => Gate::StayAndProbe,
        }
    }

    fn record(&self, sign: Sign, now: Instant) {
        self.step(|state| self.record_in(state, sign, now));
    }

    fn record_in(&self, state: &mut State, sign: Sign, now: Instant) {
        let open = State::Open { since: Some(now), vouched: false };
        match (&mut *state, sign) {
            (State::Closed(_) | State::Open { .. } | State::Trial, Sign::Nothing)
            | (State::Closed(_) | State::Open { .. }, Sign::Alive)
            | (State::Open { .. }, Sign::Dead) => {}
            (State::Probing { .. } | State::Trial, Sign::Alive) => *state = State::Closed(VecDeque::new()),
            (State::Probing { .. } | State::Trial, Sign::Dead) => *state = open,
            // The probe found out nothing: the next call is one.
            (State::Probing { .. }, Sign::Nothing) => *state = State::Open { since: None, vouched: false },
            (State::Closed(failures), Sign::Dead) => {
                failures.push_back(now);
                while failures.front().is_some_and(|at| *at + self.settings.window < now) {
                    failures.pop_front();
                }
                if failures.len() >= self.settings.failures as usize {
                    *state = open;
                }
            }
        }
    }

    /// Another class was answered.
    fn vouch(&self) {
        self.step(|state| match (&mut *state, self.probe) {
            (State::Open { vouched, .. }, _) => *vouched = true,
            (State::Probing { .. }, Probe::Elsewhere) => *state = State::Trial,
            (State::Probing { .. }, Probe::Own) | (State::Closed(_) | State::Trial, _) => {}
        });
    }

    fn state(&self, now: Instant) -> &'static str {
        match *self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Closed(_) | State::Trial => "closed",
            State::Open { since, .. } if self.is_waiting(since, now) => "open",
            State::Open { .. } | State::Probing { .. } => "half_open",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings() -> config::Breaker {
        config::Breaker { failures: 3, window: Duration::from_secs(10), open_for: Duration::from_secs(5) }
    }

    #[tokio::test(start_paused = true)]
    async fn walks_every_transition() {
        let breaker = Breaker::new(settings(), Class::Read, Probe::Own);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..2 {
            assert_eq!(breaker.admit(at(second)), Gate::Go);
            breaker.record(Sign::Dead, at(second));
            breaker.record(Sign::Nothing, at(second));
        }
        assert_eq!(breaker.state(at(2)), "closed");
        breaker.record(Sign::Dead, at(2));
        assert_eq!(breaker.state(at(2)), "open");
        assert_eq!(breaker.admit(at(6)), Gate::Stay);
        assert_eq!(breaker.admit(at(7)), Gate::Go, "one probe");
        assert_eq!(breaker.admit(at(7)), Gate::Stay, "only one");
        breaker.record(Sign::Dead, at(8));
        assert_eq!(breaker.admit(at(12)), Gate::Stay);
        assert_eq!(breaker.admit(at(13)), Gate::Go);
        breaker.record(Sign::Nothing, at(13));
        assert_eq!(breaker.admit(at(13)), Gate::Go, "a probe that never left is made again");
        breaker.record(Sign::Alive, at(13));
        assert_eq!(breaker.state(at(13)), "closed");
    }

    #[tokio::test(start_paused = true)]
    async fn old_failures_do_not_count_and_lost_probes_do_not_block() {
        let breaker = Breaker::new(settings(), Class::Read, Probe::Own);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in [0, 1, 12, 13] {
            breaker.record(Sign::Dead, at(second));
        }
        assert_eq!(breaker.state(at(13)), "closed");
        breaker.record(Sign::Dead, at(14));
        assert_eq!(breaker.admit(at(20)), Gate::Go, "a probe whose outcome never comes");
        assert_eq!(breaker.admit(at(21)), Gate::Stay);
        assert_eq!(breaker.admit(at(25)), Gate::Go);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_stays_and_the_new_numbers_count() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let numbers = |failures, window, open_for| {
            let of = Duration::from_secs;
            config::Breaker { failures, window: of(window), open_for: of(open_for) }
        };
        let first = Breakers::new(&settings());
        let fail = |breakers: &Breakers, second| breakers.record(Class::Read, Sign::Dead, at(second));
        fail(&first, 0);
        fail(&first, 1);
        let second = first.renewed(&numbers(4, 10, 5));
        fail(&second, 2);
        assert_eq!(second.state(Class::Read, at(2)), "closed", "three are no longer enough");
        // Who began before goes on learning for both.
        fail(&first, 3);
        assert_eq!(second.state(Class::Read, at(3)), "open");
        let third = second.renewed(&numbers(4, 10, 60));
        assert_eq!(third.admit(Class::Read, at(10)), Gate::Stay, "a longer time, from when it opened");
        let fourth = third.renewed(&numbers(4, 10, 1));
        assert_eq!(fourth.admit(Class::Read, at(10)), Gate::Go, "a shorter one is over");
        assert_eq!(third.admit(Class::Read, at(10)), Gate::Stay, "it is one probe for all");
        fourth.record(Class::Read, Sign::Alive, at(10));
        assert_eq!(third.state(Class::Read, at(10)), "closed");
        // A smaller threshold counts from the next failure on, a shorter window leaves out what is too old.
        for second in [20, 21] {
            fail(&fourth, second);
        }
        let fifth = fourth.renewed(&numbers(2, 3, 1));
        assert_eq!(fifth.state(Class::Read, at(21)), "closed");
        fail(&fifth, 25);
        assert_eq!(fifth.state(Class::Read, at(25)), "closed");
        fail(&fifth, 26);
        assert_eq!(fifth.state(Class::Read, at(26)), "open");
    }

    /// Opened by three failures at the given moment.
    fn opened(at: Instant) -> Breakers {
        let breakers = Breakers::new(&settings());
        for _ in 0..3 {
            breakers.record(Class::Create, Sign::Dead, at);
        }
        breakers
    }

    #[tokio::test(start_paused = true)]
    async fn a_create_never_probes() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let breakers = opened(at(0));
        let create = |second| breakers.admit(Class::Create, at(second));
        assert_eq!(create(4), Gate::Stay);
        assert_eq!(create(5), Gate::StayAndProbe);
        assert_eq!(create(6), Gate::Stay, "one probe at a time");
        assert_eq!(create(10), Gate::StayAndProbe, "it came to nothing");
        breakers.record(Class::Token, Sign::Dead, at(10));
        assert_eq!(breakers.state(Class::Create, at(10)), "half_open");
        breakers.record(Class::Token, Sign::Alive, at(11));
        assert_eq!(create(11), Gate::Go);
        assert_eq!(create(11), Gate::Go, "closed, not a single probe");
        breakers.record(Class::Create, Sign::Dead, at(12));
        assert_eq!(breakers.state(Class::Create, at(12)), "open", "on trial one failure is enough");
        assert_eq!(create(17), Gate::StayAndProbe);
    }

    #[tokio::test(start_paused = true)]
    async fn any_other_class_vouches_for_creates_but_not_before_the_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for class in [Class::Token, Class::Update, Class::Read] {
            let breakers = opened(at(0));
            breakers.record(class, Sign::Dead, at(1));
            breakers.record(class, Sign::Nothing, at(1));
            breakers.record(class, Sign::Alive, at(2));
            assert_eq!(breakers.admit(Class::Create, at(4)), Gate::Stay);
            assert_eq!(breakers.admit(Class::Create, at(5)), Gate::Go);
            breakers.record(Class::Create, Sign::Alive, at(5));
            for _ in 0..2 {
                breakers.record(Class::Create, Sign::Dead, at(6));
            }
            assert_eq!(breakers.state(Class::Create, at(6)), "closed", "the trial is over");
        }
        // A sign from before it opened says nothing.
        let breakers = Breakers::new(&settings());
        breakers.record(Class::Read, Sign::Alive, at(0));
        for _ in 0..3 {
            breakers.record(Class::Create, Sign::Dead, at(1));
        }
        assert_eq!(breakers.admit(Class::Create, at(6)), Gate::StayAndProbe);
    }
}
