//! `/metrics`: what the parts count, in the format that is asked for: OpenMetrics for those who
//! accept it, as Prometheus does, and else the text format that every scraper reads.

use std::collections::HashSet;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CONTENT_TYPE, VARY};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use prometheus_client::encoding::text::encode;

use super::Api;
use super::operators::may_measure;

/// The name of OpenMetrics in `Accept`.
const OPEN: &str = "application/openmetrics-text";

/// OpenMetrics 1.0, which prometheus-client writes.
const OPEN_FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Prometheus' own text format.
const PLAIN_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) async fn metrics(State(api): State<Api>, request: Parts) -> Response {
    if let Err(refusal) = may_measure(&api, &request).await {
        return api.refuse(&refusal);
    }
    let mut text = String::new();
    if encode(&mut text, &api.registry.lock()).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let (format, text) = match accepts_open(&request.headers) {
        true => (OPEN_FORMAT, text),
        false => (PLAIN_FORMAT, plain(&text)),
    };
    ([(CONTENT_TYPE, format), (VARY, "accept")], text).into_response()
}

/// Whether OpenMetrics is among what is accepted, not weighed with zero.
fn accepts_open(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_open = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(OPEN));
        let weight = parts.find_map(|part| part.strip_prefix("q="));
        is_open && weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|q| q > 0.0))
    })
}

/// The same in Prometheus' text format: there a counter is named as its samples are, other kinds
/// have other names, and nothing marks the end.
fn plain(open: &str) -> String {
    let types = open.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let counters: HashSet<&str> =
        types.filter(|(_, kind)| *kind == "counter").map(|(name, _)| name).collect();
    let mut text = String::with_capacity(open.len() + 8 * counters.len());
    for line in open.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let described = line.strip_prefix("# ").and_then(|rest| {
            let (word, rest) = rest.split_once(' ')?;
            let (name, rest) = rest.split_once(' ')?;
            Some((word, name, rest))
        });
        match described {
            None => text.push_str(line),
            Some((word, name, rest)) => {
                let total = if counters.contains(name) { "_total" } else { "" };
                let rest = match (word, rest) {
                    ("TYPE", "unknown") => "untyped",
                    ("TYPE", "info" | "stateset") => "gauge",
                    _ => rest,
                };
                text.push_str(&format!("# {word} {name}{total} {rest}"));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn open_metrics_are_for_those_who_accept_them() {
        for (accept, expected) in [
            ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3,*/*;q=0.2", true),
            ("text/plain, Application/OpenMetrics-Text", true),
            ("application/openmetrics-text;q=0", false),
            ("*/*", false),
            ("text/plain", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(accepts_open(&headers), expected, "{accept}");
        }
        assert!(!accepts_open(&HeaderMap::new()));
    }

    #[test]
    fn plain_text_names_a_counter_as_its_samples() {
        let open = "# HELP t_events Events given.\n# TYPE t_events counter\nt_events_total 3\n\
                    # HELP t_topics Topics.\n# TYPE t_topics gauge\nt_topics{a=\"b c\"} 1\n# EOF\n";
        let expected = "# HELP t_events_total Events given.\n# TYPE t_events_total counter\n\
                        t_events_total 3\n# HELP t_topics Topics.\n# TYPE t_topics gauge\n\
                        t_topics{a=\"b c\"} 1\n";
        assert_eq!(plain(open), expected);
    }
}
