//! What others wrote, made fit for a line of a terminal.

/// Without line breaks and without what a terminal would obey: titles and messages come from outside.
pub(super) fn on_one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}
