//! Reads what Prometheus takes and `Value` by itself does not: integers of any size, and several
//! merge keys in one mapping.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess};
use serde_yaml::value::{Tag, TaggedValue};
use serde_yaml::{Mapping, Value};

/// Any YAML, to be compared. It is never written.
pub(super) struct Read(pub(super) Value);

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor).map(Self)
    }
}

struct Visitor;

impl<'de> de::Visitor<'de> for Visitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    // Larger ones become texts, which differ where the numbers do.
    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(value.to_string().into())
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(value.to_string().into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Read(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut mapping = Mapping::new();
        while let Some(Read(key)) = entries.next_key()? {
            let Read(value) = entries.next_value()?;
            let Some(before) = mapping.insert(key.clone(), value) else {
                continue;
            };
            if key != MERGE {
                let key = key.as_str().unwrap_or_default();
                let text = format!("duplicate entry with key {key:?}");
                return Err(de::Error::custom(text));
            }
            if let Some(value) = mapping.get_mut(MERGE) {
                let merged = [as_list(before), as_list(std::mem::take(value))].concat();
                *value = merged.into();
            }
        }
        Ok(mapping.into())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Value, A::Error> {
        let (tag, content) = tagged.variant::<String>()?;
        let Read(value) = content.newtype_variant()?;
        if tag.is_empty() {
            return Err(de::Error::custom("a tag is empty"));
        }
        let tag = Tag::new(tag);
        Ok(Value::Tagged(Box::new(TaggedValue { tag, value })))
    }
}

/// What a merge key merges: a mapping, or a list of them.
fn as_list(merged: Value) -> Vec<Value> {
    match merged {
        Value::Sequence(list) => list,
        other => vec![other],
    }
}

const MERGE: &str = "<<";
