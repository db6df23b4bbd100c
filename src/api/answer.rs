//! Answers as JSON.

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::error::Problem;

/// Room for most answers; pages of a list grow it.
const ROOM: usize = 2 * 1024;

/// An answer of status 200, unless a status is given beside it. What axum has for this writes each piece of the
/// text through a buffer of another kind, which takes twice as long.
#[derive(Debug)]
pub(super) struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut body = Vec::with_capacity(ROOM);
        match serde_json::to_writer(&mut body, &self.0) {
            Ok(()) => {
                let json = HeaderValue::from_static("application/json");
                ([(header::CONTENT_TYPE, json)], body).into_response()
            }
            Err(error) => {
                Problem::internal(format!("an answer cannot be written: {error}")).into_response()
            }
        }
    }
}
