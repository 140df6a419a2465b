//! How things are written into the tables and read back.
//!
//! Promises that what is read equals what was written, to the nanosecond and the byte, and that a
//! value nobody wrote is an error rather than a guess.

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use rusqlite::Row;
use rusqlite::types::Type;
use serde_json::{Value, json};

use crate::dialect::OperationId;

/// ISO 8601 in UTC, always of one length, so that texts sort as times do.
pub(super) fn iso(moment: Timestamp) -> String {
    format!("{moment:.9}")
}

/// A time out of a column.
pub(super) fn moment(row: &Row<'_>, column: &'static str) -> rusqlite::Result<Timestamp> {
    let text: String = row.get(column)?;
    text.parse().map_err(|_| unreadable(column))
}

/// An operation out of a column.
pub(super) fn operation(row: &Row<'_>, column: &'static str) -> rusqlite::Result<OperationId> {
    let name: String = row.get(column)?;
    OperationId::from_name(&name).ok_or_else(|| unreadable(column))
}

/// A column holds what this program never writes.
pub(super) fn unreadable(column: &'static str) -> rusqlite::Error {
    let why = format!("the column {column} holds what no ayova writes");
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, why.into())
}

/// `[["content-type","application/json"],…]`. Bytes outside ASCII become the characters of the same
/// number, which keeps them readable and loses nothing.
pub(super) fn headers_to_json(headers: &HeaderMap) -> String {
    let text = |value: &HeaderValue| value.as_bytes().iter().copied().map(char::from).collect::<String>();
    let pairs = headers.iter().map(|(name, value)| json!([name.as_str(), text(value)]));
    Value::Array(pairs.collect()).to_string()
}

/// The way back.
pub(super) fn headers_from_json(text: &str) -> rusqlite::Result<HeaderMap> {
    let unreadable = || unreadable("headers");
    let pairs: Vec<[String; 2]> = serde_json::from_str(text).map_err(|_| unreadable())?;
    let mut headers = HeaderMap::with_capacity(pairs.len());
    for [name, value] in pairs {
        let bytes: Option<Vec<u8>> = value.chars().map(|char| u8::try_from(char).ok()).collect();
        let value = HeaderValue::from_bytes(&bytes.ok_or_else(unreadable)?).map_err(|_| unreadable())?;
        headers.append(HeaderName::try_from(name).map_err(|_| unreadable())?, value);
    }
    Ok(headers)
}

/// A JSON list of names.
pub(super) fn attached_to_json(attached: &[&'static str]) -> String {
    Value::from(attached).to_string()
}

/// The way back: names as the protocol's tables spell them, which is where they came from.
pub(super) fn attached_from_json(text: &str) -> rusqlite::Result<Vec<&'static str>> {
    let names: Vec<String> = serde_json::from_str(text).map_err(|_| unreadable("attached"))?;
    names.iter().map(|name| known_name(name).ok_or_else(|| unreadable("attached"))).collect()
}

fn known_name(name: &str) -> Option<&'static str> {
    OperationId::ALL.into_iter().map(OperationId::operation).find_map(|operation| {
        let members = operation.body.iter().chain(operation.query).map(|field| field.name);
        members.chain(operation.headers.iter().map(|header| header.name)).find(|known| *known == name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sort_as_texts_and_read_back() {
        let times = ["1999-12-31T23:59:59.999999999Z", "2026-01-05T03:00:00Z", "2026-01-05T03:00:00.000000001Z"];
        let times: Vec<Timestamp> = times.iter().map(|text| text.parse().unwrap()).collect();
        let texts: Vec<String> = times.iter().copied().map(iso).collect();
        assert!(texts.is_sorted(), "{texts:?}");
        assert!(texts.iter().all(|text| text.len() == 30));
        assert_eq!(texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Timestamp>>(), times);
        assert!(iso(Timestamp::MAX) > texts[2]);
    }

    #[test]
    fn headers_read_back_with_repetitions_and_odd_bytes() {
        let mut headers = HeaderMap::new();
        headers.append("content-type", HeaderValue::from_static("application/json"));
        headers.append("set-cookie", HeaderValue::from_static("a=\"1\""));
        headers.append("set-cookie", HeaderValue::from_static("b=2"));
        headers.append("x-odd", HeaderValue::from_bytes(b"caf\xe9 \xff\t").unwrap());
        let json = headers_to_json(&headers);
        assert!(json.starts_with(r#"[["content-type","application/json"],"#), "{json}");
        assert_eq!(headers_from_json(&json).unwrap(), headers);
        assert!(headers_from_json(r#"[["a","\u0100"]]"#).is_err());
    }

    #[test]
    fn every_attachable_name_reads_back() {
        for id in OperationId::ALL {
            let operation = id.operation();
            let mut names: Vec<&'static str> = operation.attachable().map(|(field, _)| field.name).collect();
            names.push(operation.dialect.id_header());
            assert_eq!(attached_from_json(&attached_to_json(&names)).unwrap(), names);
        }
        assert!(attached_from_json(r#"["nobody"]"#).is_err());
    }
}
