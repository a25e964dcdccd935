//! `GET /metrics`, for a scraper on the same host.

use crate::http::HttpResponse;

/// What a scraper gets for a target: the metrics that `scrape` returns, or that there is nothing there.
pub fn metrics_response(target: &str, scrape: impl Fn() -> String) -> HttpResponse {
    match target.split('?').next() {
        Some("/metrics") => HttpResponse {
            status: "200 OK",
            content_type: "text/plain; version=0.0.4; charset=utf-8",
            headers: Vec::new(),
            body: scrape().into(),
        },
        _ => HttpResponse::error("404 Not Found", "404 Not Found: GET /metrics"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_one_place() {
        for (target, status) in [
            ("/metrics", "200 OK"),
            ("/metrics?x=1", "200 OK"),
            ("/", "404 Not Found"),
            ("/metrics/", "404 Not Found"),
        ] {
            assert_eq!(metrics_response(target, String::new).status, status, "{target}");
        }
    }
}
