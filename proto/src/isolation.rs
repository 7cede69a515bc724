//! Isolation reports.

use codegen_types::{IsolationLevel, IsolationReport, Layer, LayerReport, LayerState};

use crate::bounds::MESSAGE_BYTES_MAX;
use crate::field::{bounded, cut, list, optional_text, required, text, word, word_text};
use crate::invalid::InvalidMessage;
use crate::v1;

const LAYER_STATES: [(&str, LayerState); 3] =
    [("enforced", LayerState::Enforced), ("partial", LayerState::Partial), ("absent", LayerState::Absent)];

pub(crate) fn level(value: &str, field: &'static str) -> Result<IsolationLevel, InvalidMessage> {
    value.parse().map_err(|_| InvalidMessage::UnknownWord { field })
}

/// The report of a message that must carry one.
pub(crate) fn report(
    value: Option<v1::IsolationReport>,
    field: &'static str,
) -> Result<IsolationReport, InvalidMessage> {
    required(value, field)?.try_into()
}

impl From<IsolationReport> for v1::IsolationReport {
    fn from(report: IsolationReport) -> Self {
        Self {
            level: report.level.as_str().to_owned(),
            layers: report.layers.into_iter().map(v1::LayerReport::from).collect(),
        }
    }
}

impl TryFrom<v1::IsolationReport> for IsolationReport {
    type Error = InvalidMessage;

    fn try_from(wire: v1::IsolationReport) -> Result<Self, InvalidMessage> {
        let field = "IsolationReport.layers";
        let layers = list(wire.layers, Layer::ALL.len(), field, LayerReport::try_from)?;
        let repeated = layers.iter().enumerate().any(|(i, row)| layers[..i].iter().any(|r| r.layer == row.layer));
        if repeated {
            return Err(InvalidMessage::OutOfRange { field, expected: "one row for each layer" });
        }
        Ok(Self { level: level(&wire.level, "IsolationReport.level")?, layers })
    }
}

impl From<LayerReport> for v1::LayerReport {
    fn from(row: LayerReport) -> Self {
        Self {
            layer: row.layer.as_str().to_owned(),
            state: word_text(&row.state, &LAYER_STATES),
            detail: cut(row.detail),
            remedy: row.remedy.map(cut),
        }
    }
}

impl TryFrom<v1::LayerReport> for LayerReport {
    type Error = InvalidMessage;

    fn try_from(wire: v1::LayerReport) -> Result<Self, InvalidMessage> {
        bounded(wire.layer.len(), MESSAGE_BYTES_MAX, "LayerReport.layer")?;
        let layer = Layer::ALL.into_iter().find(|layer| layer.as_str() == wire.layer);
        Ok(Self {
            layer: layer.ok_or(InvalidMessage::UnknownWord { field: "LayerReport.layer" })?,
            state: word(&wire.state, &LAYER_STATES, "LayerReport.state")?,
            detail: text(wire.detail, MESSAGE_BYTES_MAX, "LayerReport.detail")?,
            remedy: optional_text(wire.remedy, MESSAGE_BYTES_MAX, "LayerReport.remedy")?,
        })
    }
}
