//! An error as a person reads it.

use crate::postgres::server_message;

/// An error and its causes in one line. What a cause only passes on is not said twice, and of a server's
/// refusal there is what the server says.
pub fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain() {
        let refusal = server_message(cause);
        let text = refusal.map_or_else(|| cause.to_string(), str::to_owned);
        if !told.contains(&text) {
            let colon = if told.is_empty() { "" } else { ": " };
            told.extend([colon, &text]);
        }
        if refusal.is_some() {
            // Its cause is the same once more.
            break;
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::told;

    #[test]
    fn causes_follow_each_other_and_what_is_passed_on_is_said_once() {
        let error = anyhow::Error::from(std::io::Error::other("no such file"));
        let error = error.context("cannot open it").context("cannot start: cannot open it");
        assert_eq!(told(&error), "cannot start: cannot open it: no such file");
    }
}
