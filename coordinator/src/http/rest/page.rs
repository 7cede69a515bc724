//! Long lists in pages. A cursor says after which entry to go on, so that entries that come and go shift nothing.

use axum::Json;
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::http::error::ApiError;

/// Entries of a page when nobody says how many.
const LIMIT: u32 = 50;
/// The most entries of a page.
const LIMIT_MAX: u32 = 500;
/// The longest cursor, in bytes: the longest path is in it, as base64.
const CURSOR_BYTES_MAX: usize = 6 << 10;

/// Which page.
#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// At most so many entries. Default 50.
    #[param(minimum = 1, maximum = 500)]
    pub(super) limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(max_length = 6_144)]
    pub(super) cursor: Option<String>,
}

/// Where in a list an entry stands: a time in milliseconds, then its name.
pub(super) type Place = (i64, String);

impl PageQuery {
    /// How many entries.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`.
    pub(super) fn limit(&self) -> Result<usize, ApiError> {
        match self.limit.unwrap_or(LIMIT) {
            limit if (1..=LIMIT_MAX).contains(&limit) => Ok(limit as usize),
            _ => Err(ApiError::bad_request(format!("`limit`: must be from 1 to {LIMIT_MAX}"))),
        }
    }

    /// After which place. What is in a cursor picks among what the caller may see anyway, so that a forged one is
    /// harmless.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`.
    pub(super) fn after(&self) -> Result<Option<Place>, ApiError> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let invalid = || ApiError::bad_request("`cursor`: must be next_cursor of an earlier answer");
        if cursor.len() > CURSOR_BYTES_MAX {
            return Err(invalid());
        }
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).map_err(|_| invalid())?).map_err(|_| invalid())?;
        let (time, name) = text.split_once(':').ok_or_else(invalid)?;
        Ok(Some((time.parse().map_err(|_| invalid())?, name.to_owned())))
    }
}

/// The cursor that goes on after a place.
pub(super) fn cursor((time, name): &Place) -> String {
    URL_SAFE_NO_PAD.encode(format!("{time}:{name}"))
}

/// A page of a list that is sorted by place, in which direction ever: `is_after` says what comes after the cursor's.
///
/// # Errors
/// `INVALID_ARGUMENT`.
pub(super) fn of<T>(
    entries: impl IntoIterator<Item = T>,
    query: &PageQuery,
    place: impl Fn(&T) -> Place,
    is_after: impl Fn(&Place, &Place) -> bool,
) -> Result<(Vec<T>, Option<String>), ApiError> {
    let (limit, after) = (query.limit()?, query.after()?);
    let rest = entries.into_iter().filter(|entry| after.as_ref().is_none_or(|after| is_after(&place(entry), after)));
    let mut page: Vec<T> = rest.take(limit + 1).collect();
    let more = page.len() > limit;
    page.truncate(limit);
    let next = page.last().filter(|_| more).map(|last| cursor(&place(last)));
    Ok((page, next))
}

/// The answer with a page: entries under their name, `next_cursor`, and the address of the next page.
pub(super) fn answer(name: &str, entries: Vec<Value>, next: Option<String>, uri: &Uri) -> Response {
    answer_beside(Map::new(), name, entries, next, uri)
}

/// As [`answer`], beside something else that is said.
pub(super) fn answer_beside(
    mut body: Map<String, Value>,
    name: &str,
    entries: Vec<Value>,
    next: Option<String>,
    uri: &Uri,
) -> Response {
    let link = next.as_deref().and_then(|next| link(uri, next));
    body.insert(name.to_owned(), Value::Array(entries));
    body.extend(next.map(|next| ("next_cursor".to_owned(), json!(next))));
    let mut response = Json(body).into_response();
    if let Some(link) = link {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

/// The next page's address (RFC 8288): this one's with another cursor.
fn link(uri: &Uri, cursor: &str) -> Option<HeaderValue> {
    let others =
        uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
    let query: Vec<&str> = others.collect();
    let joined = if query.is_empty() { String::new() } else { format!("{}&", query.join("&")) };
    HeaderValue::from_str(&format!("<{}?{joined}cursor={cursor}>; rel=\"next\"", uri.path())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(limit: u32, cursor: Option<String>) -> PageQuery {
        PageQuery { limit: Some(limit), cursor }
    }

    #[test]
    fn pages_give_each_entry_once_whatever_comes_and_goes_between_them() {
        let mut list: Vec<i64> = vec![1, 3, 5, 7, 9];
        let place = |n: &i64| (*n, format!("e{n}"));
        let (first, next) = of(list.clone(), &query(2, None), place, |a, b| a > b).unwrap();
        assert_eq!(first, [1, 3]);
        list.insert(1, 2);
        list.retain(|n| *n != 3);
        list.push(11);
        let (second, next) = of(list.clone(), &query(4, next), place, |a, b| a > b).unwrap();
        assert_eq!((second, next), (vec![5, 7, 9, 11], None));
    }

    #[test]
    fn a_forged_cursor_is_refused_or_picks_among_the_same() {
        let page =
            |cursor: &str| of([1_i64], &query(1, Some(cursor.to_owned())), |n| (*n, String::new()), |a, b| a > b);
        let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
        for wrong in ["", "!", "e30", &"A".repeat(300), &encoded("x:1"), &encoded("1"), &encoded(&"1".repeat(9_000))] {
            assert!(page(wrong).is_err(), "{wrong}");
        }
        assert_eq!(page(&cursor(&(i64::MIN, String::new()))).unwrap().0, [1]);
        let longest = (0, "\n".repeat(4_096));
        assert_eq!(query(1, Some(cursor(&longest))).after().unwrap(), Some(longest));
        for limit in [0, LIMIT_MAX + 1] {
            assert!(query(limit, None).limit().is_err());
        }
    }

    #[test]
    fn the_next_page_is_asked_for_as_this_one_was() {
        let uri: Uri = "/api/v1/tasks?cursor=a&state=running".parse().unwrap();
        assert_eq!(link(&uri, "b").unwrap(), "</api/v1/tasks?state=running&cursor=b>; rel=\"next\"");
    }
}
