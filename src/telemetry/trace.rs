//! W3C trace context, and what makes spans where they are exported.
//!
//! Promises that only a well-formed `traceparent` is believed and passed on, and that what goes upstream
//! names a span of the try's own (<https://www.w3.org/TR/trace-context/>). Exporting is behind a trait,
//! so that nothing here or in the layers knows how; without it a request that brings no trace gets none.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Longest `tracestate` that is passed on; the specification asks for at least as much.
const STATE_MAX: usize = 512;

/// Entries of a `tracestate` at most.
const ENTRIES_MAX: usize = 32;

/// Flags whose meaning is known: sampled, and that the trace id is random.
const KNOWN_FLAGS: u8 = 0b11;

/// A place in a trace: the trace and the span that what follows is a child of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace; never zero.
    pub trace_id: u128,
    /// The span; never zero.
    pub span_id: u64,
    /// Whether it is sampled.
    pub flags: u8,
    /// What vendors along the way add, unread.
    pub state: Option<HeaderValue>,
}

impl Context {
    /// The caller's, where it sent exactly one that is well-formed; a bad `tracestate` is left out.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(&TRACEPARENT).iter();
        let parent = parents.next().filter(|_| parents.next().is_none())?;
        let context = parse(parent.as_bytes())?;
        Some(Self { state: state(headers), ..context })
    }

    /// Puts it into a request in place of whatever is there.
    pub fn put_into(&self, headers: &mut HeaderMap) {
        let parent = format!("00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags);
        if let Ok(parent) = HeaderValue::try_from(parent) {
            headers.insert(TRACEPARENT, parent);
        }
        if let Some(state) = &self.state {
            headers.insert(TRACESTATE, state.clone());
        }
    }

    /// Another span of the same trace; of an id that is all zeros the specification makes none.
    #[must_use]
    pub fn with_span(&self, span_id: u64) -> Self {
        Self { span_id: span_id.max(1), ..self.clone() }
    }

    /// The trace id as it is written.
    #[must_use]
    pub fn trace(&self) -> impl fmt::Display {
        TraceId(self.trace_id)
    }
}

struct TraceId(u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// `version-traceid-spanid-flags`; a later version may be longer, and is then read as this one.
fn parse(text: &[u8]) -> Option<Context> {
    let (version, rest) = text.split_first_chunk::<2>()?;
    let version = hex(version)?;
    let rest = rest.strip_prefix(b"-")?;
    let (trace_id, rest) = rest.split_first_chunk::<32>()?;
    let rest = rest.strip_prefix(b"-")?;
    let (span_id, rest) = rest.split_first_chunk::<16>()?;
    let rest = rest.strip_prefix(b"-")?;
    let (flags, rest) = rest.split_first_chunk::<2>()?;
    let ends = rest.is_empty() || (version > 0 && rest.starts_with(b"-"));
    if version == 0xff || !ends {
        return None;
    }
    let context = Context {
        trace_id: hex(trace_id)?,
        span_id: u64::try_from(hex(span_id)?).ok()?,
        flags: u8::try_from(hex(flags)?).ok()? & KNOWN_FLAGS,
        state: None,
    };
    (context.trace_id != 0 && context.span_id != 0).then_some(context)
}

/// Lower-case hexadecimal digits only.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

/// All `tracestate` headers as one, where every entry of them is well-formed.
fn state(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut given = headers.get_all(&TRACESTATE).iter();
    let first = given.next()?;
    let text =
        given.try_fold(first.to_str().ok()?.to_owned(), |all, more| Some(format!("{all},{}", more.to_str().ok()?)))?;
    let entries: Vec<&str> = text.split(',').map(|entry| entry.trim_matches([' ', '\t'])).collect();
    let entries: Vec<&str> = entries.into_iter().filter(|entry| !entry.is_empty()).collect();
    let fits = text.len() <= STATE_MAX && (1..=ENTRIES_MAX).contains(&entries.len());
    let mut keys: Vec<&str> = entries.iter().filter_map(|entry| entry_key(entry)).collect();
    let well_formed = keys.len() == entries.len();
    keys.sort_unstable();
    keys.dedup();
    if fits && well_formed && keys.len() == entries.len() {
        HeaderValue::try_from(entries.join(",")).ok()
    } else {
        None
    }
}

/// The key of `key=value` as the specification spells both.
fn entry_key(entry: &str) -> Option<&str> {
    let (key, value) = entry.split_once('=')?;
    let in_key = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte);
    let in_value = |byte: u8| (0x20..=0x7e).contains(&byte) && byte != b',' && byte != b'=';
    let begins = key.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let key_is_good = begins && key.len() <= 256 && key.bytes().all(in_key);
    let value_is_good = (1..=256).contains(&value.len()) && value.bytes().all(in_value);
    (key_is_good && value_is_good).then_some(key)
}

/// Makes spans and exports them. Never waits.
pub trait Tracer: Send + Sync + fmt::Debug {
    /// Begins the span of a request that came in with this method.
    fn request(&self, method: &str, caller: Option<&Context>) -> Box<dyn Span>;

    /// Begins the span of a try.
    fn attempt(&self, request: &Context) -> Box<dyn Span>;

    /// Exports what is left, blocking for as long as this at most; nothing is exported afterwards.
    fn end(&self, patience: Duration);
}

/// A tracer as it is passed around; nothing where no spans are exported.
pub type SharedTracer = Option<Arc<dyn Tracer>>;

/// A span under way. Dropped without [`end`](Self::end), its work was given up.
pub trait Span: Send + fmt::Debug {
    /// Where it stands in its trace.
    fn context(&self) -> Context;

    /// Ends it with what is known by then.
    fn end(self: Box<Self>, facts: Facts<'_>);
}

/// What a span says besides its times, in the words of the semantic conventions.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// `http.request.method`.
    pub method: &'a str,
    /// `http.route`; nothing where none matched. It is configured, so it holds nothing of a request.
    pub route: Option<&'a str>,
    /// `http.response.status_code`.
    pub status: Option<u16>,
    /// `error.type`, where it was one.
    pub error: Option<&'a str>,
    /// `server.address` and `server.port` of a try.
    pub server: Option<&'a Server>,
    /// Our own words, each under a name of ours.
    pub more: &'a [(&'static str, &'a str)],
}

/// Whom tries go to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// Host name or address.
    pub address: String,
    /// Port.
    pub port: u16,
}

impl Server {
    /// The server of an origin.
    #[must_use]
    pub fn of(origin: &http::Uri) -> Self {
        let standard = if origin.scheme_str() == Some("http") { 80 } else { 443 };
        Self { address: origin.host().unwrap_or_default().to_owned(), port: origin.port_u16().unwrap_or(standard) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(headers: &[(&'static str, &str)]) -> Option<Context> {
        let pairs = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            let value: HeaderValue = value;
            map.append(name, value);
        }
        Context::of(&map)
    }

    fn read_state(states: &[&str]) -> Option<String> {
        let states = states.iter().map(|state| ("tracestate", *state));
        let headers: Vec<_> = [("traceparent", GOOD)].into_iter().chain(states).collect();
        read(&headers).unwrap().state.map(|state| state.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_good_one_is_read_and_written_back() {
        let context = read(&[("traceparent", GOOD), ("tracestate", "congo=t61rcWkgMzE")]).unwrap();
        let mut headers = HeaderMap::new();
        context.put_into(&mut headers);
        assert_eq!(headers["traceparent"], GOOD);
        assert_eq!(headers["tracestate"], "congo=t61rcWkgMzE");
        assert_eq!(context.trace().to_string(), "0af7651916cd43dd8448eb211c80319c");
        context.with_span(1).put_into(&mut headers);
        assert_eq!(headers["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-0000000000000001-01");
    }

    #[test]
    fn a_bad_one_is_none() {
        for bad in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.more",
            "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
            "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
        ] {
            assert_eq!(read(&[("traceparent", bad)]), None, "{bad}");
        }
        assert_eq!(read(&[("traceparent", GOOD), ("traceparent", GOOD)]), None, "two are none");
        assert_eq!(read(&[("tracestate", "a=1")]), None);
    }

    #[test]
    fn a_later_version_is_read_as_this_one_and_unknown_flags_are_cleared() {
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-fd-what-the-future-brings";
        let context = read(&[("traceparent", later)]).unwrap();
        assert_eq!(context.flags, 1);
        let mut headers = HeaderMap::new();
        context.put_into(&mut headers);
        assert_eq!(headers["traceparent"], GOOD);
    }

    #[test]
    fn a_bad_state_is_left_out() {
        assert_eq!(read_state(&["a=1, b=2", "c=3,"]).as_deref(), Some("a=1,b=2,c=3"));
        assert_eq!(read_state(&["0tenant@vendor=x y"]).as_deref(), Some("0tenant@vendor=x y"));
        let (long, many) = (format!("a={}", "x".repeat(600)), vec!["a=1"; 33].join(","));
        for bad in ["a", "A=1", "a=", "=1", "a=1=2", "a=1,a=2", "a=\u{7f}", "é=1", "", ",", &long, &many] {
            if HeaderValue::try_from(bad).is_ok() {
                assert_eq!(read_state(&[bad]), None, "{bad}");
            }
        }
    }
}
