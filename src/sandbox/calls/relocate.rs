//! Members that a switch puts elsewhere than the table has them.
//!
//! Promises that the table stays the only list of fields: the body is brought into the table's form
//! before it is checked, and faults are named by the place the member has on the wire.

use serde_json::Value;

use crate::config::sandbox::{MemberPlace, SnapSwitches};
use crate::document::Document;

/// A member with two possible places.
struct Movable {
    name: &'static str,
    /// Where the table has it.
    table: MemberPlace,
}

const BANK_CODE: Movable = Movable { name: "bankCode", table: MemberPlace::AdditionalInfo };
const ORIGINAL_REFERENCE: Movable = Movable { name: "originalReferenceNo", table: MemberPlace::Top };

/// The members and where they are on the wire.
fn places(switches: &SnapSwitches) -> [(Movable, MemberPlace); 2] {
    [(BANK_CODE, switches.bank_code_place), (ORIGINAL_REFERENCE, switches.original_reference_place)]
}

/// The body in the table's form; nothing where it already has it.
pub(super) fn into_table_form(document: &Document, switches: &SnapSwitches) -> Option<Document> {
    let moved: Vec<_> = places(switches).into_iter().filter(|(movable, wire)| movable.table != *wire).collect();
    if moved.is_empty() {
        return None;
    }
    let mut body: Value = serde_json::from_slice(document.text()).ok()?;
    for (movable, wire) in moved {
        let value = members(&mut body, wire).and_then(|members| members.remove(movable.name));
        if let Some(members) = members(&mut body, movable.table) {
            // What stands at the table's place is not where the switch wants it.
            members.remove(movable.name);
            members.extend(value.map(|value| (movable.name.to_owned(), value)));
        }
    }
    Document::parse(body.to_string().into()).ok()
}

/// A field's name as it is on the wire.
pub(super) fn wire_name(field: &str, switches: &SnapSwitches) -> String {
    for (movable, wire) in places(switches) {
        if field == dotted(&movable, movable.table) {
            return dotted(&movable, wire);
        }
    }
    field.to_owned()
}

fn dotted(movable: &Movable, place: MemberPlace) -> String {
    match place {
        MemberPlace::Top => movable.name.to_owned(),
        MemberPlace::AdditionalInfo => format!("additionalInfo.{}", movable.name),
    }
}

fn members(body: &mut Value, place: MemberPlace) -> Option<&mut serde_json::Map<String, Value>> {
    match place {
        MemberPlace::Top => body.as_object_mut(),
        MemberPlace::AdditionalInfo => body.get_mut("additionalInfo")?.as_object_mut(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn members_move_to_where_the_table_has_them() {
        let body = r#"{"bankCode":"014","additionalInfo":{"bankCode":"009","originalReferenceNo":"R1"},"n":1.50}"#;
        let document = Document::parse(Bytes::from_static(body.as_bytes())).unwrap();
        assert!(into_table_form(&document, &SnapSwitches::default()).is_none());
        let switches = SnapSwitches {
            bank_code_place: MemberPlace::Top,
            original_reference_place: MemberPlace::AdditionalInfo,
            ..SnapSwitches::default()
        };
        let moved = into_table_form(&document, &switches).unwrap();
        let text = |path: &[&str]| moved.root().at(path).and_then(crate::document::Value::as_str);
        assert_eq!(text(&["additionalInfo", "bankCode"]), Some("014"));
        assert_eq!(text(&["originalReferenceNo"]), Some("R1"));
        assert_eq!(text(&["bankCode"]), None);
        assert_eq!(wire_name("additionalInfo.bankCode", &switches), "bankCode");
        assert_eq!(wire_name("originalReferenceNo", &switches), "additionalInfo.originalReferenceNo");
        assert_eq!(wire_name("trxId", &switches), "trxId");
    }
}
