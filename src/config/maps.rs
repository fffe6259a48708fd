//! How every map of gehen.yml is read: keys that are unknown or stand twice are refused at their line, merge keys are
//! followed, and a key that is empty differs from one that is missing.

use std::{borrow::Cow, fmt, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeOwned, DeserializeSeed, Error as _, IntoDeserializer as _, MapAccess, SeqAccess, Visitor,
        value::MapAccessDeserializer,
    },
    forward_to_deserialize_any,
};
use serde_json::json;

use super::values::{Name, text};
use crate::text::listed;

/// YAML's merge key.
const MERGE: &str = "<<";
/// What the keys that hold anchors begin with.
const ANCHORS: &str = "x-";

/// What a file says of one key: nothing, nothing on purpose (`url: ~`), which no merged map fills in, or a value.
#[derive(Debug, Default)]
pub enum Said<T> {
    #[default]
    Nothing,
    Empty,
    Value(T),
}

impl<T> Said<T> {
    /// The value, if there is one.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Nothing | Self::Empty => None,
        }
    }

    /// Takes over what a merged map says where nothing is said here.
    pub fn fill(&mut self, base: Self) {
        if matches!(self, Self::Nothing) {
            *self = base;
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Said<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Empty, Self::Value))
    }
}

impl<T: JsonSchema> JsonSchema for Said<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Option::<T>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Option::<T>::json_schema(generator)
    }
}

/// Reads a key that may be left out but not be empty.
pub fn not_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Said<T>, D::Error> {
    T::deserialize(deserializer).map(Said::Value)
}

/// What one map takes over from another; [`keys!`] implements it.
pub trait Merge {
    /// Takes over what `base` says of keys of which nothing is said here.
    fn fill(&mut self, base: Self);
}

/// The struct of a map whose keys gehen knows, made by [`keys!`].
pub trait Keys: DeserializeOwned + JsonSchema + Merge {
    /// What is expected where such a map belongs.
    const WHAT: &'static str;
    /// Keys of which one must hold something where the map stands on its own.
    const REQUIRED: &'static [&'static str] = &[];
    /// A key that says nothing without another one, and that other one, which may be empty on purpose.
    const NEEDS: Option<(&'static str, &'static str)> = None;
    /// Whether keys that begin with `x-` may hold anything.
    const HOLDS_ANCHORS: bool = false;
    /// What the map is once it stands on its own, merged maps included.
    type Whole;

    /// Checks what no key shows alone. The error says the way out.
    fn whole(self) -> Result<Self::Whole, String>;
}

/// A map with the keys of `T`, alone or to be merged into another one.
#[derive(Debug)]
pub struct Map<T>(pub T);

impl<'de, T: Keys> Deserialize<'de> for Map<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KnownKeys<T>(PhantomData<T>);
        impl<'de, T: Keys> Visitor<'de> for KnownKeys<T> {
            type Value = Map<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(T::WHAT)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Map<T>, A::Error> {
                let mut merged = Merged::default();
                let mut keys = T::deserialize(Guarded { map, known: &[], seen: Vec::new(), merged: &mut merged })?;
                for Map(base) in merged.0 {
                    keys.fill(base);
                }
                Ok(Map(keys))
            }
        }
        deserializer.deserialize_map(KnownKeys(PhantomData))
    }
}

impl<T: Keys> JsonSchema for Map<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = T::json_schema(generator);
        let merge = generator.subschema_for::<Merged<Self>>();
        if let Some(properties) = schema.get_mut("properties").and_then(|properties| properties.as_object_mut()) {
            properties.insert(MERGE.to_owned(), merge.into());
        }
        schema.insert("additionalProperties".to_owned(), false.into());
        if T::HOLDS_ANCHORS {
            schema.insert("patternProperties".to_owned(), json_schema!({ (format!("^{ANCHORS}")): true }).into());
        }
        schema
    }
}

/// A map between serde_yaml and the code that serde derives: it passes each known key on, once, and keeps the rest.
struct Guarded<'a, A, T> {
    map: A,
    known: &'static [&'static str],
    seen: Vec<String>,
    merged: &'a mut Merged<Map<T>>,
}

impl<'de, A: MapAccess<'de>, T: Keys> Deserializer<'de> for Guarded<'_, A, T> {
    type Error = A::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.known = fields;
        visitor.visit_map(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, A::Error> {
        visitor.visit_map(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

impl<'de, A: MapAccess<'de>, T: Keys> MapAccess<'de> for Guarded<'_, A, T> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let known = self.known;
        let holds_anchors = |key: &str| T::HOLDS_ANCHORS && key.starts_with(ANCHORS);
        let check = |key: &str| {
            if key == MERGE || known.contains(&key) || holds_anchors(key) {
                return Ok(());
            }
            let anchors = if T::HOLDS_ANCHORS { "; a key that holds anchors begins with `x-`" } else { "" };
            let keys = if known.len() == 1 { "the known key is" } else { "the known keys are" };
            Err(format!("unknown key `{key}`, {keys} {}{anchors}", listed(known, "and")))
        };
        while let Some(key) = self.map.next_key_seed(Once { seen: &mut self.seen, what: "a key", check })? {
            if key == MERGE {
                *self.merged = self.map.next_value()?;
            } else if holds_anchors(&key) {
                // Read, so that an alias that blows up is refused wherever it stands.
                self.map.next_value::<serde_yaml::Value>()?;
            } else {
                return seed.deserialize(key.into_deserializer()).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// A map with the keys of `T` that stands on its own, checked where serde_yaml still knows its place.
#[derive(Debug)]
pub struct Whole<T: Keys>(pub T::Whole);

impl<'de, T: Keys> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Checked<T>(PhantomData<T>);
        impl<'de, T: Keys> Visitor<'de> for Checked<T> {
            type Value = Whole<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(T::WHAT)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Whole<T>, A::Error> {
                let Map(keys) = Map::<T>::deserialize(MapAccessDeserializer::new(map))?;
                keys.whole().map(Whole).map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_map(Checked(PhantomData))
    }
}

impl<T: Keys> JsonSchema for Whole<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Whole{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = generator.subschema_for::<Map<T>>();
        if !T::REQUIRED.is_empty() {
            let empty = json!({ "enum": [null, {}] });
            let holds = |key: &&str| json!({ "required": [key], "properties": { *key: { "not": empty } } });
            let nothing: serde_json::Map<_, _> =
                T::REQUIRED.iter().map(|key| ((*key).to_owned(), empty.clone())).collect();
            // A merged map may have such a key, too; editors differ in whether they look into it.
            let merges = json!({ "required": [MERGE], "not": { "required": T::REQUIRED, "properties": nothing } });
            let alternatives = T::REQUIRED.iter().map(holds).chain([merges]).collect();
            schema.insert("anyOf".to_owned(), serde_json::Value::Array(alternatives));
        }
        if let Some((key, other)) = T::NEEDS {
            let is_empty = json!({ "properties": { key: { "type": "null" } } });
            let alternatives = json!([is_empty, { "required": [other] }, { "required": [MERGE] }]);
            schema.insert("dependencies".to_owned(), json!({ key: { "anyOf": alternatives } }));
        }
        schema
    }
}

/// A map from names of the kind `N`, in their order.
#[derive(Debug)]
pub struct Named<N, T> {
    pub entries: Vec<(String, T)>,
    kind: PhantomData<N>,
}

impl<'de, N: Name, T: Deserialize<'de>> Deserialize<'de> for Named<N, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names<N, T>(PhantomData<(N, T)>);
        impl<'de, N: Name, T: Deserialize<'de>> Visitor<'de> for Names<N, T> {
            type Value = Named<N, T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "a map from {} to {}", N::WHAT, N::SAYS)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<N, T>, A::Error> {
                let mut entries: Vec<(String, T)> = Vec::new();
                let mut merged = Merged::<Named<N, T>>::default();
                let mut seen = Vec::new();
                let check = |name: &str| if name == MERGE { Ok(()) } else { N::check(name) };
                while let Some(name) = map.next_key_seed(Once { seen: &mut seen, what: N::WHAT, check })? {
                    if name == MERGE {
                        merged = map.next_value()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                for (name, entry) in merged.0.into_iter().flat_map(|base| base.entries) {
                    if !entries.iter().any(|(other, _)| *other == name) {
                        entries.push((name, entry));
                    }
                }
                Ok(Named { entries, kind: PhantomData })
            }
        }
        deserializer.deserialize_map(Names(PhantomData))
    }
}

impl<N: Name, T: JsonSchema> JsonSchema for Named<N, T> {
    fn schema_name() -> Cow<'static, str> {
        N::MANY.into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "properties": { MERGE: generator.subschema_for::<Merged<Self>>() },
            "patternProperties": { (N::PATTERN): generator.subschema_for::<T>() },
            "additionalProperties": false,
        })
    }
}

/// What a merge key refers to: one map, or a list of maps.
#[derive(Debug)]
struct Merged<T>(Vec<T>);

impl<T> Default for Merged<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Merged<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMore<T> {
            type Value = Merged<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map, or a list of maps, to merge")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Merged<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|one| Merged(vec![one]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merged<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    all.push(one);
                }
                Ok(Merged(all))
            }
        }
        deserializer.deserialize_any(OneOrMore(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Merged<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Merged{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({
            "description": "A map, or a list of maps, whose keys count where they are not given here.",
            "anyOf": [one, { "type": "array", "items": one }],
        })
    }
}

/// A text that passes `check` and that `seen`, into which it goes, doesn't hold yet.
pub struct Once<'a, F> {
    pub seen: &'a mut Vec<String>,
    pub what: &'static str,
    pub check: F,
}

impl<'de, F: FnOnce(&str) -> Result<(), String>> DeserializeSeed<'de> for Once<'_, F> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        text(deserializer, self.what, |found| {
            (self.check)(found)?;
            if self.seen.iter().any(|seen| seen == found) {
                return Err(format!("`{found}` stands here a second time; keep one of the two"));
            }
            self.seen.push(found.to_owned());
            Ok(found.to_owned())
        })
    }
}

/// Declares the struct of a map. Its keys are the fields in camelCase, each made a [`Said`]; what is written of a key
/// here is what the schema says of it.
macro_rules! keys {
    ($(#[$about:meta])* struct $name:ident { $($(#[$about_key:meta])* $key:ident: $value:ty,)* }) => {
        #[derive(Debug, Default, serde::Deserialize, schemars::JsonSchema)]
        #[serde(default, rename_all = "camelCase")]
        $(#[$about])*
        struct $name {
            $($(#[$about_key])* $key: $crate::config::maps::Said<$value>,)*
        }

        impl $crate::config::maps::Merge for $name {
            fn fill(&mut self, base: Self) {
                $(self.$key.fill(base.$key);)*
            }
        }
    };
}
pub(super) use keys;
