//! Metrics as values, read once at one moment and written in whatever form is asked for: as Prometheus text, or for a
//! collector by OTLP. So both tell the same, and there is one set of counters.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

/// Every family, in the order in which they are shown.
#[derive(Debug, Default)]
pub struct Families(pub Vec<Family>);

/// The samples of one name.
#[derive(Debug)]
pub struct Family {
    /// Without the `_total` of counters.
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
    pub samples: Vec<Sample>,
}

/// What a family's values mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
    /// Always 1; what it tells is in its labels.
    Info,
}

/// A value, and what it is of.
#[derive(Debug)]
pub struct Sample {
    pub labels: Labels,
    pub value: Value,
}

/// Label pairs.
pub type Labels = Vec<(&'static str, String)>;

/// A value.
#[derive(Debug)]
pub enum Value {
    Whole(u64),
    Real(f64),
    /// Buckets by upper bound, the last of which is infinite; each counts its own only.
    Histogram {
        sum: f64,
        buckets: Vec<(f64, u64)>,
    },
}

impl Families {
    /// Begins a family.
    pub fn add(&mut self, name: &'static str, help: &'static str, kind: Kind) -> &mut Family {
        self.0.push(Family { name, help, kind, samples: Vec::new() });
        // It was put there in the line above.
        let last = self.0.len() - 1;
        &mut self.0[last]
    }

    /// A family of one value without labels.
    pub fn single(&mut self, name: &'static str, help: &'static str, kind: Kind, value: Value) {
        self.add(name, help, kind).push(&[], value);
    }
}

impl Family {
    /// Adds a sample.
    pub fn push(&mut self, labels: &[(&'static str, &str)], value: Value) {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.samples.push(Sample { labels, value });
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
            Kind::Info => MetricType::Info,
        };
        let mut family = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for sample in &self.samples {
            let labels = Pairs(&sample.labels);
            if self.kind == Kind::Info {
                family.encode_info(&labels)?;
            } else if sample.labels.is_empty() {
                self.encode_value(&sample.value, &mut family)?;
            } else {
                self.encode_value(&sample.value, &mut family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn encode_value(&self, value: &Value, metric: &mut MetricEncoder<'_>) -> fmt::Result {
        match (self.kind, value) {
            (Kind::Counter, Value::Whole(value)) => metric.encode_counter(value, None as NoExemplar<'_>),
            (Kind::Counter, Value::Real(value)) => metric.encode_counter(value, None as NoExemplar<'_>),
            (_, Value::Whole(value)) => metric.encode_gauge(&i64::try_from(*value).unwrap_or(i64::MAX)),
            (_, Value::Real(value)) => metric.encode_gauge(value),
            (_, Value::Histogram { sum, buckets }) => {
                let count = buckets.iter().map(|(_, count)| count).sum();
                metric.encode_histogram::<Vec<(String, String)>>(*sum, count, buckets, None)
            }
        }
    }
}

type NoExemplar<'a> = Option<&'a Exemplar<Vec<(String, String)>, f64>>;

/// As the encoder takes labels.
struct Pairs<'a>(&'a Labels);

impl EncodeLabelSet for Pairs<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let pairs: Vec<(&str, &str)> = self.0.iter().map(|(name, value)| (*name, value.as_str())).collect();
        pairs.as_slice().encode(encoder)
    }
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|family| family.encode(&mut encoder))
    }
}
