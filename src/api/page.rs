//! Lists: how many, and where to go on.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::request::Fields;

const DEFAULT: i64 = 50;
const MOST: i64 = 200;

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    pub data: Vec<T>,
    /// Give it as `cursor` to get the next page; null on the last one.
    pub next_cursor: Option<String>,
}

/// Which page is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub limit: i64,
    pub before: Option<Uuid>,
}

impl Window {
    pub fn read(fields: &mut Fields, limit: Option<&str>, cursor: Option<&str>) -> Self {
        let limit = read_limit(fields, limit);
        let before = cursor.and_then(|text| {
            let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
            Uuid::from_slice(&bytes).ok()
        });
        if cursor.is_some() && before.is_none() {
            fields.refuse("cursor", "must be a nextCursor of this list, or be left out");
        }
        Self { limit, before }
    }

    /// How many the page shows.
    pub const fn limit(self) -> i64 {
        self.limit
    }

    /// The text that goes on after `id`.
    pub fn cursor(id: Uuid) -> String {
        URL_SAFE_NO_PAD.encode(id)
    }

    /// One more than the page shows, to know whether there is another page.
    pub fn fetch(self) -> i64 {
        self.limit + 1
    }

    /// Makes a page of `rows`, of which [`Window::fetch`] were asked for.
    pub fn page<R, T>(
        self,
        mut rows: Vec<R>,
        id: impl Fn(&R) -> Uuid,
        view: impl FnMut(R) -> T,
    ) -> Page<T> {
        let limit = usize::try_from(self.limit).unwrap_or(0);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let last = rows.last().map(id).filter(|_| more);
        Page { data: rows.into_iter().map(view).collect(), next_cursor: last.map(Self::cursor) }
    }
}

pub(super) fn read_limit(fields: &mut Fields, text: Option<&str>) -> i64 {
    let Some(text) = text else { return DEFAULT };
    match text.parse() {
        Ok(limit) if (1..=MOST).contains(&limit) => limit,
        _ => {
            fields.refuse("limit", format!("must be a number from 1 to {MOST}"));
            DEFAULT
        }
    }
}
