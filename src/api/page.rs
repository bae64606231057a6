//! The dashboard: a page with its scripts and style, compiled into the program.
//!
//! It is served without a login and contains no data: the page requests that from the API, with the
//! login that its user types.

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

/// Allows the page's own files and API only; nothing inline, and no framing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// A file of the page.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    body: &'static str,
}

/// A file of `src/api/page/`, served at its path there.
macro_rules! asset {
    ($path:literal, $content_type:expr) => {
        asset!($path, $content_type, $path)
    };
    ($path:literal, $content_type:expr, $file:literal) => {
        Asset {
            path: $path,
            content_type: $content_type,
            body: include_str!(concat!("page", $file)),
        }
    };
}

static ASSETS: [Asset; 15] = [
    asset!("/", HTML, "/index.html"),
    asset!("/style.css", STYLE),
    asset!("/favicon.svg", IMAGE),
    asset!("/app.js", SCRIPT),
    asset!("/app/chart.js", SCRIPT),
    asset!("/app/client.js", SCRIPT),
    asset!("/app/dialogs.js", SCRIPT),
    asset!("/app/dom.js", SCRIPT),
    asset!("/app/feed.js", SCRIPT),
    asset!("/app/format.js", SCRIPT),
    asset!("/app/listing.js", SCRIPT),
    asset!("/app/overview.js", SCRIPT),
    asset!("/app/torrents.js", SCRIPT),
    asset!("/app/users.js", SCRIPT),
    asset!("/app/whitelist.js", SCRIPT),
];

/// The routes of the page, without a login, for a router with any state.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    ASSETS.iter().fold(Router::new(), |router, asset| {
        let tag = asset.tag();
        let serve = move |headers: HeaderMap| {
            let response = asset.response(&tag, &headers);
            async { response }
        };
        router.route(asset.path, get(serve))
    })
}

impl Asset {
    /// The entity tag, a hash of the contents.
    fn tag(&self) -> String {
        format!("\"{}\"", HEXLOWER.encode(&Sha256::digest(self.body)[..12]))
    }

    /// The file, or 304 if the browser has it. A new version of Mika shows at the next reload.
    fn response(&self, tag: &str, request: &HeaderMap) -> Response {
        let headers: [(HeaderName, &str); 8] = [
            (CONTENT_TYPE, self.content_type),
            (ETAG, tag),
            (CACHE_CONTROL, "no-cache"),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
            (
                HeaderName::from_static("cross-origin-opener-policy"),
                "same-origin",
            ),
            (
                HeaderName::from_static("cross-origin-resource-policy"),
                "same-origin",
            ),
        ];
        let is_known = request
            .get_all(IF_NONE_MATCH)
            .iter()
            .filter_map(|tags| tags.to_str().ok())
            .flat_map(|tags| tags.split(','))
            .any(|known| known.trim().trim_start_matches("W/") == tag);
        if is_known {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        (headers, self.body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text after each `before`, up to the next quote.
    fn quoted<'a>(text: &'a str, before: &'a str) -> Vec<&'a str> {
        let tails = text.split(before).skip(1);
        tails.filter_map(|tail| tail.split('"').next()).collect()
    }

    #[test]
    fn every_file_that_the_page_names_is_served_and_no_other() {
        let mut named = vec!["/".to_owned()];
        for asset in &ASSETS {
            let is_html = asset.content_type == HTML;
            for before in ["src=\"/", "href=\"/"].iter().filter(|_| is_html) {
                named.extend(
                    quoted(asset.body, before)
                        .iter()
                        .map(|file| format!("/{file}")),
                );
            }
            let folder = &asset.path[..=asset.path.rfind('/').unwrap()];
            let imports = quoted(asset.body, "from \"./");
            named.extend(imports.iter().map(|file| format!("{folder}{file}")));
        }
        named.sort();
        named.dedup();
        let mut served: Vec<&str> = ASSETS.iter().map(|asset| asset.path).collect();
        served.sort_unstable();
        assert_eq!(named, served);
    }

    #[test]
    fn files_obey_the_policy_and_parse_no_markup() {
        for asset in &ASSETS {
            let forbidden = match asset.content_type {
                HTML => &["<style", " style=", " onclick=", " onload=", "javascript:"][..],
                SCRIPT => &[
                    "innerHTML",
                    "outerHTML",
                    "insertAdjacentHTML",
                    "document.write",
                    "eval(",
                    "style:",
                ],
                _ => &["<script", "@import", "url("],
            };
            for word in forbidden {
                assert!(!asset.body.contains(word), "{}: {word}", asset.path);
            }
            let body = asset.body.replace("http://www.w3.org/2000/svg", "");
            assert!(!body.contains("://"), "{}: a foreign host", asset.path);
        }
    }

    #[test]
    fn a_cached_file_is_answered_with_304() {
        let asset = &ASSETS[0];
        let tag = asset.tag();
        let fresh = asset.response(&tag, &HeaderMap::new());
        assert_eq!(fresh.status(), StatusCode::OK);
        assert_eq!(fresh.headers()[CONTENT_SECURITY_POLICY], POLICY);
        assert_eq!(fresh.headers()[CONTENT_TYPE], HTML);
        for (known, status) in [
            (tag.clone(), StatusCode::NOT_MODIFIED),
            (format!("\"other\", W/{tag}"), StatusCode::NOT_MODIFIED),
            ("\"other\"".into(), StatusCode::OK),
        ] {
            let asked = HeaderMap::from_iter([(IF_NONE_MATCH, known.parse().unwrap())]);
            assert_eq!(asset.response(&tag, &asked).status(), status, "{known}");
        }
        let tags: std::collections::HashSet<String> = ASSETS.iter().map(Asset::tag).collect();
        assert_eq!(tags.len(), ASSETS.len());
    }
}
