//! Composites: `(1,"a ""b""",)`.

use super::object::Object;
use super::{Attribute, Misshapen, piece, write as write_value};

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
        object.add(&*attribute.name, json);
    }
    if rest != ")" {
        return Err(Misshapen);
    }
    object.write(out);
    Ok(())
}
