//! The simulator's page: zones and records for people.
use maud::{DOCTYPE, html};

use super::CloudflareDouble;
use crate::http::double::lock;

impl CloudflareDouble {
    pub(super) fn page(&self) -> String {
        let state = lock(&self.state);
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width,initial-scale=1";
                    title { "Simulated Cloudflare: DNS records" }
                    style {
                        ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem}"
                        "h2{font-size:1.1rem;margin:1.5rem 0 .5rem}.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}"
                        "th,td{text-align:left;padding:.4rem .8rem .4rem 0;border-bottom:1px solid #8885}small{opacity:.75}"
                    }
                }
                body {
                    h1 { "DNS records" }
                    p { a href="/" { "Overview" } }
                    @for zone in &state.zones {
                        h2 { (zone["name"].as_str().unwrap_or_default()) " " small { (zone["status"].as_str().unwrap_or_default()) } }
                        @let records: Vec<_> = state.records.iter().filter(|r| r["zone_id"] == zone["id"]).collect();
                        @if records.is_empty() { p { small { "No records." } } }
                        @else {
                            div class="scroll" {
                                table {
                                    thead { tr { th { "Type" } th { "Name" } th { "Content" } th { "Proxied" } th { "Comment" } } }
                                    tbody {
                                        @for record in records {
                                            tr {
                                                td { (record["type"].as_str().unwrap_or_default()) }
                                                td { (record["name"].as_str().unwrap_or_default()) }
                                                td { (record["content"].as_str().unwrap_or_default()) }
                                                td { (if record["proxied"] == true { "yes" } else { "no" }) }
                                                td { small { (record["comment"].as_str().unwrap_or_default()) } }
                                            }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        .into_string()
    }
}
