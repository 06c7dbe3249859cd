//! Which trace a piece of work belongs to, as text that travels through the database: W3C's
//! `traceparent`.

/// `00-<trace id>-<span id>-<flags>`, all in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Traceparent(String);

impl Traceparent {
    /// Reads a header, a variable or a column; `None` where it names no trace.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.trim().split('-').collect();
        let [version, trace_id, span_id, flags] = parts.as_slice() else { return None };
        let is_hex = |part: &str, digits: usize| {
            part.len() == digits && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let names = |part: &str, digits| is_hex(part, digits) && part.bytes().any(|b| b != b'0');
        // Version 0 is the one there is.
        let valid = *version == "00" && names(trace_id, 32) && names(span_id, 16);
        (valid && is_hex(flags, 2)).then(|| Self(text.trim().to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        &self.0[3..35]
    }
}

/// What an attempt goes back to. None of it is the attempt's parent: one trace would grow with every
/// retry, and one request for a thousand recordings would make a single trace of a thousand attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    /// The claim that leased it.
    pub claim: Option<Traceparent>,
    /// The task's attempt before it: the one that failed, or whose worker died.
    pub previous: Option<Traceparent>,
    /// Whoever asked for it: an enqueue, or an administrator.
    pub request: Option<Traceparent>,
}

impl Origins {
    /// Reads what the database keeps.
    pub fn read(previous: Option<&str>, request: Option<&str>) -> Self {
        let parse = |text: Option<&str>| text.and_then(Traceparent::parse);
        Self { claim: None, previous: parse(previous), request: parse(request) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_names_a_trace_is_a_traceparent() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parsed = Traceparent::parse(text).expect("it is one");
        assert_eq!(parsed.as_str(), text);
        assert_eq!(parsed.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        for wrong in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Traceparent::parse(wrong), None, "{wrong}");
        }
    }
}
