//! Replies as real servers send them, and what is made of each.

use super::*;

const LIMITED: Refusal = Refusal::RateLimited { retry_after: None };

const DIALECT: Dialect = Dialect { base64: true, dimensions: true };

fn asked<'a>(inputs: &'a [String]) -> Asked<'a> {
    Asked { inputs, secrets: &["sk-abcdefghijklmnopqrstuvwxyz"], dialect: DIALECT, tokens: 100 }
}

fn refusal(status: u16, body: &str) -> Refusal {
    Refusal::read(status, body.as_bytes(), &RateHeaders::default(), &asked(&[]))
}

fn described(body: &str, inputs: &[String]) -> String {
    describe(400, body.as_bytes(), &asked(inputs))
}

#[test]
fn a_parameter_is_recognised_in_every_shape_in_which_servers_refuse_it() {
    for body in [
        r#"{"error":{"message":"This model does not support specifying dimensions.","param":null}}"#,
        r#"{"error":{"message":"Unknown parameter","param":"dimensions"}}"#,
        r#"{"object":"error","message":"dimensions is not supported","code":400}"#,
        r#"{"detail":[{"loc":["body","dimensions"],"msg":"Extra inputs are not permitted"}]}"#,
    ] {
        assert_eq!(refusal(400, body), Refusal::Parameter(Parameter::Dimensions), "{body}");
    }
    for body in [
        r#"{"error":"encoding_format is not supported"}"#,
        r#"{"detail":"base64 is not available"}"#,
        r#"[{"error":{"code":400,"message":"Unknown name \"encoding_format\""}}]"#,
    ] {
        assert_eq!(refusal(422, body), Refusal::Parameter(Parameter::EncodingFormat), "{body}");
    }
}

#[test]
fn a_parameter_that_was_not_sent_or_that_only_an_input_names_is_not_at_fault() {
    let body = br#"{"error":{"message":"bad input: the dimensions of the room"}}"#;
    let input = [String::from("We measured the dimensions of the room.")];
    let quoting = Refusal::read(400, body, &RateHeaders::default(), &asked(&input));
    assert!(matches!(quoting, Refusal::Final(Failure::RequestRefused { .. })), "{quoting:?}");

    let bare = Asked { dialect: Dialect { base64: false, dimensions: false }, ..asked(&[]) };
    let not_sent = Refusal::read(400, body, &RateHeaders::default(), &bare);
    assert!(matches!(not_sent, Refusal::Final(Failure::RequestRefused { .. })), "{not_sent:?}");
}

fn limit(tokens: u64) -> RateHeaders {
    RateHeaders { tokens_limit: Some(tokens), ..RateHeaders::default() }
}

#[test]
fn a_429_is_told_apart_by_whether_waiting_or_splitting_or_paying_helps() {
    let error = |code: &str, message: &str| {
        format!(r#"{{"error":{{"code":"{code}","message":"{message}"}}}}"#)
    };
    let limited = error(
        "rate_limit_exceeded",
        "Rate limit reached on tokens per min (TPM): Limit 150000, Used 149000, Requested 5000.",
    );
    assert_eq!(refusal(429, &limited), LIMITED);
    assert_eq!(refusal(429, ""), LIMITED);
    for message in [
        "Request too large for m on tokens per min (TPM): Limit 30000, Requested 31538.",
        "tokens per min. Limit: 30000 / min. Requested: 31538",
    ] {
        let too_large = refusal(429, &error("rate_limit_exceeded", message));
        assert!(matches!(too_large, Refusal::Final(Failure::RequestRefused { .. })), "{message}");
    }
    let above_header = Refusal::read(429, b"", &limit(99), &asked(&[]));
    assert!(matches!(above_header, Refusal::Final(Failure::RequestRefused { .. })));
    assert_eq!(Refusal::read(429, b"", &limit(100), &asked(&[])), LIMITED);
    let unpaid = refusal(429, &error("insufficient_quota", "You exceeded your current quota"));
    assert!(matches!(unpaid, Refusal::Final(Failure::QuotaExhausted { .. })), "{unpaid:?}");
}

#[test]
fn the_status_decides_whose_fault_it_is() {
    for status in [400, 413, 422] {
        let refused = refusal(status, "{}");
        assert!(matches!(refused, Refusal::Final(Failure::RequestRefused { .. })), "{status}");
    }
    for status in [401, 403, 404, 405] {
        let refused = refusal(status, "{}");
        assert!(matches!(refused, Refusal::Final(Failure::KeyRefused { .. })), "{status}");
    }
    for status in [302, 408, 425, 500, 502, 503, 529] {
        let passing = refusal(status, "{}");
        let expected = matches!(passing, Refusal::Passing(Failure::ProviderUnavailable { .. }));
        assert!(expected, "{status}");
    }
    assert!(matches!(refusal(402, "{}"), Refusal::Final(Failure::QuotaExhausted { .. })));
    let key = refusal(400, r#"{"error":{"code":"model_not_found"}}"#);
    assert!(matches!(key, Refusal::Final(Failure::KeyRefused { .. })), "{key:?}");
}

#[test]
fn a_description_keeps_the_code_the_type_and_two_hundred_characters() {
    let message = "é".repeat(500);
    let body =
        format!(r#"{{"error":{{"message":"{message}","code":"c_1","type":"not an identifier"}}}}"#);
    assert_eq!(described(&body, &[]), format!("status 400, code c_1: {}", "é".repeat(200)));
    assert_eq!(described(r#"{"error":{"code":7}}"#, &[]), "status 400, code 7, with no message");
    assert_eq!(described("<html>no</html>", &[]).matches("HTML").count(), 1);
    assert!(described("oops", &[]).ends_with("not JSON"));
    assert!(described("", &[]).ends_with("empty body"));
}

#[test]
fn a_message_that_quotes_an_input_or_the_key_is_withheld() {
    let inputs = [String::from("Anna: our budget is forty thousand."), String::from("yes, do")];
    for message in [
        "cannot embed 'our budget is forty' here",
        "cannot embed 'yes, do'",
        "Incorrect API key: sk-abcdefghijklmnopqrstuvwxyz",
        "cannot embed '\\\\u4f60\\\\u597d'",
    ] {
        let line = described(&format!(r#"{{"error":{{"message":"{message}"}}}}"#), &inputs);
        assert!(line.contains("withheld") && !line.contains("embed '"), "{line}");
        assert!(!line.contains("sk-"), "{line}");
    }
    let masked = r#"{"error":{"message":"Incorrect API key provided: sk-ab******wxyz"}}"#;
    assert!(described(masked, &inputs).contains("Incorrect"));
}
