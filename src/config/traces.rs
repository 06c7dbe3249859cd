//! Where traces are looked at, so that an attempt can point to its own.

use clap::Args;

/// What stands for the trace in a template.
const TRACE_ID: &str = "{trace_id}";

/// Where traces are looked at.
#[derive(Debug, Clone, Args)]
pub struct TraceArgs {
    /// Address of a trace, with `{trace_id}` where the id belongs
    #[arg(long, env = "EMBEDDING_RECOVERY_TRACE_URL_TEMPLATE", value_name = "URL",
          value_parser = parse_template)]
    pub trace_url_template: Option<String>,
}

impl TraceArgs {
    /// The address of this trace, where a template was given.
    pub fn url(&self, trace_id: &str) -> Option<String> {
        self.trace_url_template.as_ref().map(|template| template.replace(TRACE_ID, trace_id))
    }
}

/// It becomes a link on the page, so it must lead to a page and nowhere else.
fn parse_template(text: &str) -> Result<String, String> {
    if !text.starts_with("https://") && !text.starts_with("http://") {
        return Err("it begins with neither https:// nor http://".to_owned());
    }
    match text.contains(TRACE_ID) {
        true => Ok(text.to_owned()),
        false => Err(format!("it has no {TRACE_ID}, which the id of a trace takes the place of")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_leads_to_a_page_and_has_a_place_for_the_trace() {
        let template = "https://traces.example/{trace_id}?tab=1";
        let args = TraceArgs { trace_url_template: parse_template(template).ok() };
        assert_eq!(args.url("4bf9").as_deref(), Some("https://traces.example/4bf9?tab=1"));
        for wrong in ["https://traces.example/", "javascript:alert('{trace_id}')", "{trace_id}"] {
            assert!(parse_template(wrong).is_err(), "{wrong}");
        }
    }
}
