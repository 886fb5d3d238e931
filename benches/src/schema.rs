//! `ringwire-bench schema`: what the JSON of loads has.

use schemars::generate::SchemaGenerator;
use schemars::json_schema;

/// Prints the schema.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn command() -> anyhow::Result<()> {
    crate::output::write_json("-", &schema())
}

/// Of all loads: one of them.
fn schema() -> schemars::Schema {
    let mut generator = SchemaGenerator::default();
    let kinds = [
        generator.subschema_for::<crate::scenario::Report>(),
        generator.subschema_for::<crate::echo::Report>(),
        generator.subschema_for::<crate::handshakes::Report>(),
        generator.subschema_for::<crate::broadcast::Report>(),
    ];
    let definitions = generator.take_definitions(true);
    json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The result of a load",
        "description": "What ringwire-bench writes with --json. Several scenarios in one run are an array of them. Names keep \
                        their meaning; new ones may come.",
        "anyOf": kinds,
        "$defs": definitions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who changes a result changes what is written of it: `ringwire-bench schema > docs/load-generator.schema.json`.
    #[test]
    fn documented_schema_is_that_of_the_results() {
        let documented = include_str!("../../docs/load-generator.schema.json");
        let documented: serde_json::Value = serde_json::from_str(documented).unwrap();
        assert_eq!(documented, serde_json::to_value(schema()).unwrap());
    }

    /// Every name has an explanation, or says what it is by its name and those around it.
    #[test]
    fn results_are_what_their_schema_says() {
        let schema = serde_json::to_value(schema()).unwrap();
        let report = crate::echo::test_report(1000);
        let written = serde_json::to_value(report).unwrap();
        let properties = &schema["$defs"]["EchoReport"]["properties"];
        for name in written.as_object().unwrap().keys() {
            assert!(properties.get(name).is_some(), "{name}: {properties}");
        }
        let names = properties.as_object().unwrap().keys();
        assert!(names.clone().all(|name| written.get(name).is_some()), "{properties}");
    }
}
