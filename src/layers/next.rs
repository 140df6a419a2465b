//! Turns one async function into a tower layer.
//!
//! A step is `async fn(state, input, next) -> output`: everything before `next.run` happens on the
//! way in, everything after it on the way out. This is the one place that deals with boxing, and
//! readiness is dealt with by having none: nothing in the middle exerts back pressure, caps refuse.
//! Knows no step.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use tower::Layer;

/// A step's work under way.
pub type Pending<Out> = Pin<Box<dyn Future<Output = Out> + Send>>;

/// Everything below a step: takes what the step passes on, gives what comes back.
pub struct Next<In, Out>(Arc<dyn Fn(In) -> Pending<Out> + Send + Sync>);

impl<In, Out> Clone for Next<In, Out> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<In, Out> fmt::Debug for Next<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Next")
    }
}

impl<In, Out> Next<In, Out> {
    /// The innermost step, which passes nothing on.
    pub fn last<State, Step, Work>(state: State, step: Step) -> Self
    where
        State: Clone + Send + Sync + 'static,
        Step: Fn(State, In) -> Work + Send + Sync + 'static,
        Work: Future<Output = Out> + Send + 'static,
    {
        Self(Arc::new(move |input| Box::pin(step(state.clone(), input))))
    }

    /// Passes a request on.
    pub fn run(&self, input: In) -> Pending<Out> {
        (self.0)(input)
    }
}

/// A step as a layer.
pub struct StepLayer<State, Step, In, Out> {
    state: State,
    step: Arc<Step>,
    shapes: PhantomData<fn(In) -> Out>,
}

impl<State, Step, In, Out> fmt::Debug for StepLayer<State, Step, In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StepLayer({})", std::any::type_name::<Step>())
    }
}

/// The layer of a step and what it works with.
pub fn layer<State, Step, In, Out, InNext, OutNext, Work>(state: State, step: Step) -> StepLayer<State, Step, In, Out>
where
    Step: Fn(State, In, Next<InNext, OutNext>) -> Work,
    Work: Future<Output = Out>,
{
    StepLayer { state, step: Arc::new(step), shapes: PhantomData }
}

impl<State, Step, In, Out, InNext, OutNext, Work> Layer<Next<InNext, OutNext>> for StepLayer<State, Step, In, Out>
where
    State: Clone + Send + Sync + 'static,
    Step: Fn(State, In, Next<InNext, OutNext>) -> Work + Send + Sync + 'static,
    Work: Future<Output = Out> + Send + 'static,
    In: 'static,
    Out: 'static,
    InNext: 'static,
    OutNext: 'static,
{
    type Service = Next<In, Out>;

    fn layer(&self, next: Next<InNext, OutNext>) -> Self::Service {
        let (state, step) = (self.state.clone(), Arc::clone(&self.step));
        Next(Arc::new(move |input| Box::pin(step(state.clone(), input, next.clone()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn double(factor: u32, input: u32, next: Next<u64, String>) -> usize {
        next.run(u64::from(input * factor)).await.len()
    }

    #[tokio::test]
    async fn a_step_sees_the_way_in_and_the_way_out() {
        let last = Next::last("x", |text: &'static str, times: u64| async move { text.repeat(times as usize) });
        let stack = layer(2, double).layer(last);
        assert_eq!(stack.run(21).await, 42);
    }
}
