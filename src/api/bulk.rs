//! Bulk routes: rows succeed or fail independently.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::error::ApiError;
use crate::storage::Added;
use crate::sync::edit::{EditError, Editor, Propagation, Saved, TEXT_MAX, validate_text};

/// The most rows in one request.
const ROWS_MAX: usize = 10_000;

/// The largest id that a web application may give.
const ID_MAX: u32 = i32::MAX.cast_unsigned();

/// Rows in one transaction, few enough that others don't wait long for it.
const CHUNK: usize = 500;

/// The rows of a bulk.
#[derive(Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(as = Rows, max_items = 10_000)]
pub(super) struct BulkRows<T>(Vec<T>);

/// What became of each row, in the order of the rows.
#[derive(Default, Serialize, ToSchema)]
pub(super) struct BulkResult {
    added: u64,
    known: u64,
    invalid: u64,
    failed: u64,
    results: Vec<RowResult>,
    /// Set if other nodes could not be told yet; they follow by themselves
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

/// A valid row, or what is wrong with it.
pub(super) type Checked<T> = Result<T, String>;

/// What became of a row.
#[derive(Serialize, ToSchema)]
#[schema(as = Row)]
pub(super) struct RowResult {
    status: Status,
    /// The id of a row that was added
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u32>,
    /// The passkey of a user who was added without one
    #[serde(skip_serializing_if = "Option::is_none")]
    passkey: Option<String>,
    /// What is wrong with an invalid row
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Status {
    Added,
    /// The id, the info hash or the passkey is taken; nothing was changed
    Known,
    /// It can't be used; the others can
    Invalid,
    /// Storage could not take it any more; send it again
    Failed,
}

/// Checks an id that a web application gives. The upper half of the range is left to the database,
/// which counts on from the largest id: one at the end would leave it none.
pub(super) fn check_id(field: &str, id: Option<u32>) -> Result<(), String> {
    match id {
        Some(id) if !(1..=ID_MAX).contains(&id) => Err(format!("{field}: expected 1 to {ID_MAX}")),
        _ => Ok(()),
    }
}

/// 1 to [`TEXT_MAX`] characters, none of them a control character.
pub(super) fn check_name(field: &str, name: &str) -> Result<(), String> {
    validate_text(field, name).map_err(|_| {
        format!("{field}: expected 1 to {TEXT_MAX} characters, none of them a control character")
    })
}

// === impl BulkRows ===

impl<T> BulkRows<T> {
    pub fn checked(self) -> Result<Vec<T>, ApiError> {
        if self.0.len() > ROWS_MAX {
            let message = format!("expected at most {ROWS_MAX} rows, found {}", self.0.len());
            return Err(ApiError::invalid(message));
        }
        Ok(self.0)
    }
}

/// A row that can be added.
pub(super) trait Addable: Clone + Send + Sync {
    /// Adds rows in one transaction. Returns each one's id, none if it is known, or why it is refused.
    fn add(
        editor: &Editor,
        rows: &[Self],
    ) -> impl Future<Output = Result<Saved<Vec<Added<u32>>>, EditError>> + Send;

    /// The result of a row that was added under that id, or is known if there is none.
    fn result(&self, id: Option<u32>) -> RowResult {
        RowResult::of(id)
    }
}

/// Adds rows in chunks. Committed chunks stay, whatever happens to later ones: only an error of the
/// first chunk fails the request.
pub(super) async fn run<T: Addable>(
    api: &Api,
    rows: Vec<Checked<T>>,
) -> Result<BulkResult, ApiError> {
    let mut result = BulkResult::default();
    let mut propagation = Propagation::Done;
    let mut failure: Option<String> = None;
    for rows in rows.chunks(CHUNK) {
        let mut ids = Vec::new();
        if failure.is_none() {
            let good: Vec<T> = rows.iter().flatten().cloned().collect();
            match T::add(&api.editor, &good).await {
                Ok(saved) => {
                    ids = saved.value;
                    propagation = propagation.and(saved.propagation);
                }
                Err(error) if result.results.is_empty() => return Err(error.into()),
                Err(error) => failure = Some(ApiError::from(error).message().to_owned()),
            }
        }
        let mut ids = ids.into_iter();
        for checked in rows {
            result.push(match (checked, &failure) {
                (Err(problem), _) => RowResult::without(Status::Invalid, problem),
                (Ok(_), Some(failure)) => RowResult::without(Status::Failed, failure),
                (Ok(good), None) => match ids.next() {
                    Some(Err(problem)) => RowResult::without(Status::Invalid, &problem),
                    Some(Ok(id)) => good.result(id),
                    None => good.result(None),
                },
            });
        }
    }
    result.warning = api.done(propagation).await.warning;
    Ok(result)
}

// === impl BulkResult and RowResult ===

impl BulkResult {
    fn push(&mut self, row: RowResult) {
        *match row.status {
            Status::Added => &mut self.added,
            Status::Known => &mut self.known,
            Status::Invalid => &mut self.invalid,
            Status::Failed => &mut self.failed,
        } += 1;
        self.results.push(row);
    }
}

impl RowResult {
    /// A row that was added under that id, or is known if there is none.
    pub fn of(id: Option<u32>) -> Self {
        Self {
            status: if id.is_some() {
                Status::Added
            } else {
                Status::Known
            },
            id,
            passkey: None,
            message: None,
        }
    }

    fn without(status: Status, problem: &str) -> Self {
        Self {
            status,
            id: None,
            passkey: None,
            message: Some(problem.to_owned()),
        }
    }

    /// Adds the generated passkey, if the row was added.
    pub fn with_passkey(mut self, passkey: Option<String>) -> Self {
        if self.status == Status::Added {
            self.passkey = passkey;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted() {
        let mut result = BulkResult::default();
        for row in [
            RowResult::of(Some(1)),
            RowResult::of(None),
            RowResult::of(None),
            RowResult::without(Status::Invalid, "no"),
        ] {
            result.push(row);
        }
        assert_eq!((result.added, result.known, result.invalid), (1, 2, 1));
    }
}
