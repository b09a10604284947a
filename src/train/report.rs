//! The page that `mlbridge evaluate --html` writes: tables and curves in one file, without scripts or anything fetched.

use super::evaluate::{self, Evaluation};
use super::metrics;
use super::names::Names;
use crate::model::Model;
use serde_json::Value;
use std::fmt::Write;

/// How many of the benign names with the highest scores are shown.
const WORST: usize = 60;
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 280.0;
/// Room for labels left of and below a plot.
const MARGIN: f64 = 44.0;

/// The page. `manifest` is the model's, whose training history is drawn if it has one.
pub fn page(
    model: &Model,
    manifest: &[u8],
    names: &Names,
    chosen: &[u32],
    scores: &[f32],
    found: &Evaluation,
) -> String {
    let bad = |place: usize| names.about[chosen[place] as usize].malicious;
    let of = |malicious: bool| {
        let places = (0..chosen.len()).filter(|&place| bad(place) == malicious);
        metrics::sorted(places.map(|place| evaluate::logit(scores[place])))
    };
    let (benign, malicious) = (of(false), of(true));
    let mut out = String::from(STYLE);
    let title = format!("{} {}", escape(model.name()), escape(model.version()));
    push(&mut out, format_args!("<h1>Model {title}</h1>"));
    push(
        &mut out,
        format_args!(
            "<p>{} benign and {} malicious names. Area under the curve <b>{:.4}</b>; recall at false-positive rates of 1e-2, 1e-3, 1e-4: <b>{}</b>. Engine: {}.</p>",
            found.benign,
            found.malicious,
            found.auc,
            percents(found.recall),
            model.engine()
        ),
    );
    out.push_str("<h2>Recall at low false-positive rates</h2>");
    out.push_str(&roc(&benign, &malicious));
    out.push_str(
        "<h2>Scores</h2><p>Share of names by logit, benign (blue) and malicious (red).</p>",
    );
    out.push_str(&histogram(&benign, &malicious));
    history(&mut out, manifest);
    tables(&mut out, found);
    out.push_str("<h2>Benign names with the highest scores</h2><table><tr><th>name<th>score<th>class<th>source</tr>");
    let mut worst: Vec<usize> = (0..chosen.len()).filter(|&place| !bad(place)).collect();
    worst.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    for place in worst.into_iter().take(WORST) {
        let about = names.about[chosen[place] as usize];
        let name = String::from_utf8_lossy(names.get(chosen[place] as usize));
        push(
            &mut out,
            format_args!(
                "<tr><td>{}<td>{:.5}<td>{}<td>{}</tr>",
                escape(&name),
                scores[place],
                escape(names.word(about.class)),
                escape(names.word(about.source))
            ),
        );
    }
    out.push_str("</table></html>\n");
    out
}

const STYLE: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>mlbridge: a model's figures</title><style>\
body{font:15px/1.45 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
table{border-collapse:collapse;margin:.5rem 0}td,th{padding:.15rem .7rem;text-align:right;border-bottom:1px solid #ddd}\
td:first-child,th:first-child{text-align:left}svg{background:#fafafa;border:1px solid #ddd}svg text{font:11px sans-serif;fill:#444}</style>";

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(text);
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn percents(shares: [f64; 3]) -> String {
    shares.map(|share| format!("{:.1} %", share * 100.0)).join(" / ")
}

fn tables(out: &mut String, found: &Evaluation) {
    out.push_str("<h2>By class and family</h2><p>Share of names above the logits of 1e-2, 1e-3, 1e-4: recall of malicious classes, false positives of benign ones.</p>\
        <table><tr><th>class<th>family<th>names<th>area<th>1e-2<th>1e-3<th>1e-4</tr>");
    for group in &found.groups {
        let [first, second, third] = group.above.map(|share| share * 100.0);
        let family = group.family.as_deref().unwrap_or("");
        let area = group.auc.map_or_else(String::new, |auc| format!("{auc:.4}"));
        push(
            out,
            format_args!(
                "<tr><td>{}<td>{}<td>{}<td>{area}<td>{first:.2}<td>{second:.2}<td>{third:.2}</tr>",
                escape(&group.class),
                escape(family),
                group.names
            ),
        );
    }
    out.push_str("</table><h2>Stated and found false-positive rates</h2><table><tr><th>score<th>stated<th>found<th></tr>");
    for at in &found.thresholds {
        push(
            out,
            format_args!(
                "<tr><td>{:.6} ({})<td>{:.2e}<td>{:.2e}<td>recall {:.1} %</tr>",
                at.score,
                at.decision,
                at.stated,
                at.found,
                at.recall * 100.0
            ),
        );
    }
    for rate in &found.rates {
        push(
            out,
            format_args!(
                "<tr><td>{:.4}<td>{:.2e}<td>{:.2e}<td></tr>",
                rate.score, rate.stated, rate.found
            ),
        );
    }
    let [[right, alarms], [missed, hits]] = found.confusion;
    push(
        out,
        format_args!(
            "</table><h2>At a score of 0.5</h2><table><tr><th><th>taken for benign<th>taken for malicious</tr>\
        <tr><td>benign<td>{right}<td>{alarms}</tr><tr><td>malicious<td>{missed}<td>{hits}</tr></table><p>Accuracy {:.1} %.</p>",
            found.accuracy * 100.0
        ),
    );
    out.push_str("<h2>Score and share of malicious names</h2><table><tr><th>score<th>names<th>mean score<th>malicious</tr>");
    for (place, bin) in found.calibration.iter().enumerate() {
        push(
            out,
            format_args!(
                "<tr><td>{:.1} to {:.1}<td>{}<td>{:.3}<td>{:.3}</tr>",
                place as f64 / 10.0,
                (place + 1) as f64 / 10.0,
                bin.names,
                bin.score,
                bin.malicious
            ),
        );
    }
    push(
        out,
        format_args!(
            "</table><p>Mean difference {:.3}; logistic loss {:.4}. The shares hold for this mix of labels, not for a resolver's traffic.</p>",
            found.calibration_error, found.loss
        ),
    );
}

/// A plot: axes with marks, then what `draw` adds; `x` and `y` map values to places.
struct Plot {
    svg: String,
    x: (f64, f64),
    y: (f64, f64),
}

impl Plot {
    fn new(x: (f64, f64), y: (f64, f64)) -> Plot {
        let (width, height) = (WIDTH + MARGIN + 12.0, HEIGHT + MARGIN);
        let svg = format!(
            "<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">"
        );
        Plot { svg, x, y }
    }

    fn place(&self, x: f64, y: f64) -> (f64, f64) {
        let across = (x - self.x.0) / (self.x.1 - self.x.0);
        let up = (y - self.y.0) / (self.y.1 - self.y.0);
        (MARGIN + across * WIDTH, 8.0 + (1.0 - up) * (HEIGHT - 8.0))
    }

    fn mark_x(&mut self, x: f64, text: &str) {
        let (across, _) = self.place(x, self.y.0);
        push(
            &mut self.svg,
            format_args!(
                "<line x1=\"{across:.1}\" x2=\"{across:.1}\" y1=\"8\" y2=\"{HEIGHT}\" stroke=\"#e4e4e4\"/><text x=\"{across:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                HEIGHT + 16.0
            ),
        );
    }

    fn mark_y(&mut self, y: f64, text: &str) {
        let (_, up) = self.place(self.x.0, y);
        push(
            &mut self.svg,
            format_args!(
                "<line x1=\"{MARGIN}\" x2=\"{:.1}\" y1=\"{up:.1}\" y2=\"{up:.1}\" stroke=\"#e4e4e4\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                MARGIN + WIDTH,
                MARGIN - 5.0,
                up + 4.0
            ),
        );
    }

    fn line(&mut self, points: impl Iterator<Item = (f64, f64)>, colour: &str) {
        let mut path = String::new();
        for (x, y) in points {
            let (across, up) = self.place(x, y);
            push(&mut path, format_args!("{across:.1},{up:.1} "));
        }
        push(
            &mut self.svg,
            format_args!(
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" points=\"{path}\"/>"
            ),
        );
    }

    fn name_x(&mut self, text: &str) {
        push(
            &mut self.svg,
            format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                MARGIN + WIDTH / 2.0,
                HEIGHT + 34.0
            ),
        );
    }

    fn end(mut self) -> String {
        self.svg.push_str("</svg>");
        self.svg
    }
}

/// Recall over the false-positive rate, which is on a logarithmic axis from 1e-5 to 1.
fn roc(benign: &[f32], malicious: &[f32]) -> String {
    let mut plot = Plot::new((-5.0, 0.0), (0.0, 1.0));
    for power in -5..=0_i32 {
        plot.mark_x(f64::from(power), &format!("1e{power}"));
    }
    for tenth in (0..=10).step_by(2) {
        plot.mark_y(f64::from(tenth) / 10.0, &format!("{} %", tenth * 10));
    }
    let points = (0..=200).map(|step| {
        let power = -5.0 + f64::from(step) / 40.0;
        let threshold = metrics::threshold(benign, 10_f64.powf(power).min(1.0));
        let above = malicious.len() - malicious.partition_point(|&logit| logit <= threshold);
        // At a rate of 1 everything is above.
        let recall = if step == 200 { 1.0 } else { above as f64 / malicious.len() as f64 };
        (power, recall)
    });
    plot.line(points, "#b3261e");
    plot.name_x("false-positive rate");
    plot.end()
}

fn histogram(benign: &[f32], malicious: &[f32]) -> String {
    const BINS: usize = 60;
    const SPAN: (f64, f64) = (-15.0, 15.0);
    let shares = |all: &[f32]| {
        let mut bins = vec![0.0; BINS];
        for &logit in all {
            let place = (f64::from(logit) - SPAN.0) / (SPAN.1 - SPAN.0) * BINS as f64;
            bins[(place.max(0.0) as usize).min(BINS - 1)] += 1.0 / all.len() as f64;
        }
        bins
    };
    let both = [(shares(benign), "#1a5fb4"), (shares(malicious), "#b3261e")];
    let most = both.iter().flat_map(|(bins, _)| bins).fold(0.0_f64, |most, &share| most.max(share));
    let mut plot = Plot::new(SPAN, (0.0, most));
    for logit in (-15..=15).step_by(5) {
        plot.mark_x(f64::from(logit), &logit.to_string());
    }
    plot.mark_y(most, &format!("{:.1} %", most * 100.0));
    for (bins, colour) in &both {
        let width = (SPAN.1 - SPAN.0) / BINS as f64;
        let points = bins.iter().enumerate().flat_map(|(place, &share)| {
            let left = SPAN.0 + place as f64 * width;
            [(left, share), (left + width, share)]
        });
        plot.line(points, colour);
    }
    plot.name_x("logit");
    plot.end()
}

/// Loss and accuracy of each net by epoch, as the manifest's `history` tells.
fn history(out: &mut String, manifest: &[u8]) {
    let manifest: Value = serde_json::from_slice(manifest).unwrap_or_default();
    let Some(records) = manifest.get("history").and_then(Value::as_array) else { return };
    let number = |record: &Value, key: &str| record.get(key).and_then(Value::as_f64);
    let name = |record: &Value| record.get("net").and_then(Value::as_str).unwrap_or("").to_owned();
    let mut nets: Vec<String> = Vec::new();
    for record in records {
        if !nets.contains(&name(record)) {
            nets.push(name(record));
        }
    }
    for (key, title) in [
        ("loss", "Training loss"),
        ("accuracy", "Accuracy on the validation names, at a score of 0.5"),
    ] {
        let curve = |net: &str| -> Vec<(f64, f64)> {
            let own = records.iter().filter(|record| name(record) == net);
            own.filter_map(|record| Some((number(record, "epoch")?, number(record, key)?)))
                .collect()
        };
        let curves: Vec<(&String, Vec<(f64, f64)>)> = nets
            .iter()
            .map(|net| (net, curve(net)))
            .filter(|(_, points)| !points.is_empty())
            .collect();
        let all = || curves.iter().flat_map(|(_, points)| points);
        let least = all().fold(f64::MAX, |least, point| least.min(point.1));
        let most = all().fold(f64::MIN, |most, point| most.max(point.1));
        let last = all().fold(1.0_f64, |last, point| last.max(point.0));
        if curves.is_empty() || least >= most {
            continue;
        }
        push(out, format_args!("<h2>{title}</h2>"));
        let mut plot = Plot::new((1.0, last.max(2.0)), (least, most));
        for epoch in 1..=(last as u32) {
            plot.mark_x(f64::from(epoch), &epoch.to_string());
        }
        plot.mark_y(least, &format!("{least:.3}"));
        plot.mark_y(most, &format!("{most:.3}"));
        plot.name_x("epoch");
        for (place, (_, points)) in curves.iter().enumerate() {
            plot.line(points.iter().copied(), colour(place));
        }
        out.push_str(&plot.end());
        out.push_str("<p>");
        for (place, (net, _)) in curves.iter().enumerate() {
            push(
                out,
                format_args!(
                    "<span style=\"color:{}\">&#9632;</span> {} ",
                    colour(place),
                    escape(net)
                ),
            );
        }
        out.push_str("</p>");
    }
}

fn colour(place: usize) -> &'static str {
    const COLOURS: [&str; 8] =
        ["#b3261e", "#1a5fb4", "#26a269", "#e66100", "#813d9c", "#865e3c", "#0e7c86", "#5e5c64"];
    COLOURS[place % COLOURS.len()]
}
