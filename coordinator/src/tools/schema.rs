//! JSON Schemas of tool inputs and outputs, in the small dialect that every client understands.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

/// The schema of a type: one self-contained object without `$schema`, `$ref`, `$defs`, titles, null unions or number
/// formats, since several clients and model interfaces reject or misread each of these.
pub(super) fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    normalise(&mut schema);
    schema
}

/// The schema of a result: without descriptions, since models read the result's text and every listing is paid for.
pub(super) fn of_output<T: JsonSchema>() -> Value {
    let mut schema = of::<T>();
    strip_descriptions(&mut schema);
    schema
}

fn strip_descriptions(schema: &mut Value) {
    let Value::Object(object) = schema else { return };
    object.remove("description");
    for (word, value) in object.iter_mut() {
        match (word.as_str(), value) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(strip_descriptions),
            ("items", value) => strip_descriptions(value),
            _ => {}
        }
    }
}

fn normalise(schema: &mut Value) {
    let Value::Object(object) = schema else { return };
    for word in ["$schema", "$defs", "title", "format"] {
        object.remove(word);
    }
    if object.get("default").is_some_and(Value::is_null) {
        object.remove("default");
    }
    if let Some(Value::String(text)) = object.get_mut("description") {
        // Where a line of the source ends says nothing.
        *text = text.replace('\n', " ");
    }
    drop_null_type(object);
    drop_null_branch(object);
    for (word, value) in object.iter_mut() {
        match (word.as_str(), value) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(normalise),
            ("items" | "additionalProperties", value) => normalise(value),
            ("anyOf" | "oneOf" | "allOf", Value::Array(branches)) => branches.iter_mut().for_each(normalise),
            _ => {}
        }
    }
}

/// `"type": ["string", "null"]` says `"string"`: an optional field is one that may be left out.
fn drop_null_type(object: &mut Map<String, Value>) {
    if let Some(Value::Array(values)) = object.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    let Some(Value::Array(types)) = object.get_mut("type") else { return };
    types.retain(|t| t != "null");
    if let [only] = types.as_slice() {
        let only = only.clone();
        object.insert("type".to_owned(), only);
    }
}

/// `anyOf: [X, null]` says X.
fn drop_null_branch(object: &mut Map<String, Value>) {
    let Some(Value::Array(branches)) = object.get_mut("anyOf") else { return };
    branches.retain(|branch| branch.get("type") != Some(&Value::from("null")));
    if branches.len() != 1 {
        return;
    }
    let Some(Value::Object(only)) = branches.pop() else { return };
    object.remove("anyOf");
    for (word, value) in only {
        object.entry(word).or_insert(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(JsonSchema)]
    #[schemars(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Sample {
        /// A name,
        /// over two lines.
        title: Option<String>,
        count: Option<u64>,
        kind: Option<Kind>,
        inner: Vec<Inner>,
    }

    #[derive(JsonSchema)]
    #[schemars(rename_all = "lowercase")]
    #[expect(dead_code, reason = "only its schema is used")]
    enum Kind {
        One,
        Two,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Inner {
        x: f64,
    }

    #[test]
    fn a_schema_is_plain_and_self_contained() {
        let expected = json!({
            "type": "object",
            "properties": {
                "title": {"description": "A name, over two lines.", "type": "string"},
                "count": {"type": "integer", "minimum": 0},
                "kind": {"type": "string", "enum": ["one", "two"]},
                "inner": {"type": "array", "items": {
                    "type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"],
                }},
            },
            "additionalProperties": false,
            "required": ["inner"],
        });
        assert_eq!(of::<Sample>(), expected);
    }
}
