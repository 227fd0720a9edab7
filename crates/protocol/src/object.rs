//! Objects read from JSON that came from outside.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// A JSON object with the fields of `T`.
///
/// Serde takes an array of a struct's values for the struct as well; what comes from outside is
/// read through this, which does not.
///
/// ```
/// use tidewire_protocol::FromObject;
///
/// #[derive(serde::Deserialize)]
/// struct Point {
///     x: i32,
/// }
///
/// assert_eq!(serde_json::from_str::<FromObject<Point>>(r#"{"x":1}"#).unwrap().0.x, 1);
/// assert!(serde_json::from_str::<FromObject<Point>>("[1]").is_err());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FromObject<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for FromObject<T> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(fields))
    }
}
