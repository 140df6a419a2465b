//! The tables in words: `docs/routes.md` and the admin listener's `/routes`.
//!
//! Generated from the tables, so that they cannot disagree; a test compares the file.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Attach, Field, HeaderSource, Identity, Kind, Need, Operation, OperationId, Repeat};

/// `docs/routes.md`.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(
        "# Routes\n\nGenerated from the tables in `src/dialect` by a test; do not edit. Paths follow the configured base path.\n\
         \"Gateway\" says what an app may leave out because ayova adds it.\n",
    );
    for id in OperationId::ALL {
        operation(&mut out, id.operation());
    }
    out
}

/// One entry per operation, for `/routes`.
#[must_use]
pub fn json(operation: &Operation) -> Value {
    json!({
        "operation": operation.id.name(),
        "dialect": operation.dialect.name(),
        "method": operation.method.as_str(),
        "path": operation.path,
        "headers": operation.headers.iter().map(|header| json!({
            "name": header.name, "rule": header.kind.describe(), "gateway": header_note(header.source),
        })).collect::<Vec<_>>(),
        "query": fields(operation.query),
        "body": fields(operation.body),
        "key": operation.key.map(|key| json!({"id": key.id, "transaction": key.transaction})),
        "repeat": repeat_note(operation.repeat),
        "source": operation.source,
    })
}

fn fields(fields: &[Field]) -> Vec<Value> {
    rows(fields, "")
        .into_iter()
        .map(|(name, field)| {
            json!({"name": name, "rule": field.kind.describe(), "required": required(field.need), "gateway": need_note(field.need)})
        })
        .collect()
}

fn operation(out: &mut String, operation: &Operation) {
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{text}");
    };
    line(format_args!("\n## `{}`\n", operation.id));
    line(format_args!(
        "`{} {}` → {}. Source: `{}`.\n",
        operation.method, operation.path, operation.success, operation.source
    ));
    match operation.key {
        Some(key) => line(format_args!(
            "Same request: `{}` and `{}`. Sent again: {}.\n",
            key.id,
            key.transaction,
            repeat_note(operation.repeat)
        )),
        None => line(format_args!("Sent again: {}.\n", repeat_note(operation.repeat))),
    }
    line(format_args!("| Header | Rule | Gateway |\n| --- | --- | --- |"));
    for header in operation.headers {
        line(format_args!("| `{}` | {} | {} |", header.name, header.kind.describe(), header_note(header.source)));
    }
    for (title, list) in [("Parameter", operation.query), ("Member", operation.body)] {
        if list.is_empty() {
            continue;
        }
        line(format_args!("\n| {title} | Rule | Required | Gateway |\n| --- | --- | --- | --- |"));
        for (name, field) in rows(list, "") {
            let required = if required(field.need) { "yes" } else { "no" };
            line(format_args!("| `{name}` | {} | {required} | {} |", field.kind.describe(), need_note(field.need)));
        }
    }
}

/// Every field with its dotted name, the ones inside after the one around them.
fn rows<'f>(fields: &'f [Field], prefix: &str) -> Vec<(String, &'f Field)> {
    let mut rows = Vec::new();
    for field in fields {
        let name = format!("{prefix}{}", field.name);
        rows.push((name.clone(), field));
        match &field.kind {
            Kind::Object(inside) => rows.extend(self::rows(inside, &format!("{name}."))),
            Kind::Single(inside) => rows.extend(self::rows(inside, &format!("{name}[0]."))),
            _ => {}
        }
    }
    rows
}

const fn required(need: Need) -> bool {
    matches!(need, Need::Required | Need::Attached(_) | Need::Keyed)
}

const fn header_note(source: HeaderSource) -> &'static str {
    match source {
        HeaderSource::Caller => "made from `Idempotency-Key`, or generated where the protocol allows",
        HeaderSource::Merchant => "from the merchant's configuration",
        HeaderSource::Constant(_) => "set",
        HeaderSource::Attempt => "made for every try",
    }
}

const fn need_note(need: Need) -> &'static str {
    match need {
        Need::Required | Need::Optional => "",
        Need::Keyed => "made from `Idempotency-Key`",
        Need::Lookup => "finds the record; not sent",
        Need::Attached(attach) | Need::Completed(attach) => match attach {
            Attach::Reference => "the create's reference, from the record",
            Attach::Identity(Identity::Number) => "completed from the record",
            Attach::Identity(_) | Attach::TransactionId => "from the record",
            Attach::Fresh => "generated",
        },
    }
}

const fn repeat_note(repeat: Repeat) -> &'static str {
    match repeat {
        Repeat::Never => "never",
        Repeat::SamePair => "with the same ids and body",
        Repeat::Always => "always safe",
    }
}
