//! Paged lists.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::ApiError;
use crate::storage::Find;

/// Rows per page if the request names no limit.
const LIMIT: u32 = 50;
const LIMIT_MAX: u32 = 1000;

/// The last page; beyond it, a search is needed.
const PAGE_MAX: u32 = 1000;

/// The longest text to search for, in bytes.
const TEXT_MAX: usize = 255;

/// A page of a list.
#[derive(Serialize, ToSchema)]
#[schema(as = List)]
pub(super) struct PagedList<T> {
    /// Rows of all pages
    total: u64,
    /// Counted from 1
    page: u32,
    /// Rows per page
    limit: u32,
    rows: Vec<T>,
}

/// The sort direction of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    #[default]
    Asc,
    Desc,
}

/// Which rows to list, and how.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RowQuery<K: Default + ToSchema> {
    /// Part of the name, an id or, of a torrent, an info hash
    #[param(max_length = 255)]
    q: Option<String>,
    pub enabled: Option<bool>,
    #[serde(default)]
    #[param(inline)]
    pub sort: K,
    #[serde(default)]
    #[param(inline)]
    pub order: Order,
    /// From 1 to 1000
    #[param(minimum = 1, maximum = 1000)]
    page: Option<u32>,
    /// Rows per page: 50 by default, 1000 at most
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// The page of a list to return, and the search text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListQuery {
    pub text: Option<String>,
    page: u32,
    limit: u32,
}

impl<K: Default + ToSchema> RowQuery<K> {
    /// Checks what is asked for.
    pub fn pages(&self) -> Result<ListQuery, ApiError> {
        ListQuery::new(self.q.clone(), self.page, self.limit)
    }
}

impl ListQuery {
    fn new(text: Option<String>, page: Option<u32>, limit: Option<u32>) -> Result<Self, ApiError> {
        let page = page.unwrap_or(1);
        let limit = limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            let message = format!("limit: expected 1 to {LIMIT_MAX}");
            return Err(ApiError::invalid(message));
        }
        if !(1..=PAGE_MAX).contains(&page) {
            return Err(ApiError::invalid(format!("page: expected 1 to {PAGE_MAX}")));
        }
        let text = text.filter(|text| !text.is_empty());
        if text.as_ref().is_some_and(|text| text.len() > TEXT_MAX) {
            let message = format!("q: expected at most {TEXT_MAX} bytes");
            return Err(ApiError::invalid(message));
        }
        Ok(Self { text, page, limit })
    }

    /// Rows before this page.
    fn offset(&self) -> u64 {
        u64::from(self.page - 1) * u64::from(self.limit)
    }

    /// The query to storage.
    pub fn find<K>(&self, enabled: Option<bool>, sort: K, order: Order) -> Find<K> {
        Find {
            text: self.text.clone(),
            enabled,
            sort,
            descending: order == Order::Desc,
            offset: self.offset(),
            limit: self.limit,
        }
    }

    pub fn list<T>(&self, total: u64, rows: Vec<T>) -> PagedList<T> {
        PagedList {
            total,
            page: self.page,
            limit: self.limit,
            rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_begin_at_one_and_have_bounds() {
        let query = ListQuery::new(Some(String::new()), Some(3), Some(20)).unwrap();
        assert_eq!((query.text.as_ref(), query.offset()), (None, 40));
        for (page, limit) in [
            (Some(0), None),
            (None, Some(0)),
            (None, Some(1001)),
            (Some(u32::MAX), None),
        ] {
            assert!(ListQuery::new(None, page, limit).is_err());
        }
        assert!(ListQuery::new(Some("x".repeat(256)), None, None).is_err());
    }
}
