//! Composites: `(1,"a ""b""",)`.

use serde_json::value::RawValue;

use super::object::Object;
use super::{Attribute, Misshapen, Shape, piece, write as write_value};

/// Appends a JSON object.
pub(super) fn write(
    attributes: &[Attribute],
    text: &str,
    out: &mut String,
) -> Result<(), Misshapen> {
    let mut rest = text.strip_prefix('(').ok_or(Misshapen)?;
    let mut object = Object::default();
    for (at, attribute) in attributes.iter().enumerate() {
        if at > 0 {
            rest = rest.strip_prefix(',').ok_or(Misshapen)?;
        }
        let (value, quoted) = piece(&mut rest, b",)")?;
        let mut json = String::new();
        match value.is_empty() && !quoted {
            true => json.push_str("null"),
            false => write_value(&attribute.shape, &value, &mut json)?,
        }
        if is_passed_on(&attribute.shape) && serde_json::from_str::<&RawValue>(&json).is_err() {
            return Err(Misshapen);
        }
        object.add(&*attribute.name, json);
    }
    if rest != ")" {
        return Err(Misshapen);
    }
    object.write(out);
    Ok(())
}

/// Whether texts of the shape, or of what is in it, become JSON unread. The attributes of a type can
/// be altered without a word in the log, and a text must not become JSON in place of a number.
fn is_passed_on(shape: &Shape) -> bool {
    match shape {
        Shape::Number | Shape::Jsonb => true,
        Shape::Array(element, _) | Shape::Vector(element) => is_passed_on(element),
        _ => false,
    }
}
