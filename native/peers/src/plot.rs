//! Draws the table of ratios: one bar for each line, on a logarithmic scale around one.

use plotters::prelude::*;

struct Bar {
    label: String,
    ratio: f64,
}

pub fn draw(input: &str, output: &str) {
    let text = std::fs::read_to_string(input).expect("the file of ratios");
    let bars: Vec<Bar> = text.lines().filter_map(parse).collect();
    let height = 90 + 22 * bars.len() as u32;
    let root = SVGBackend::new(output, (960, height)).into_drawing_area();
    root.fill(&WHITE).unwrap();
    let most = bars
        .iter()
        .map(|bar| bar.ratio.max(1.0 / bar.ratio))
        .fold(10.0, f64::max);
    let mut chart = ChartBuilder::on(&root)
        .caption(
            "Time of the peer / time of ExCubecl (longer to the right is faster)",
            ("sans-serif", 16),
        )
        .margin(10)
        .set_label_area_size(LabelAreaPosition::Left, 330)
        .set_label_area_size(LabelAreaPosition::Bottom, 30)
        .build_cartesian_2d(
            (1.0 / most..most * 1.5).log_scale(),
            (0..bars.len()).into_segmented(),
        )
        .unwrap();
    let label = |at: &SegmentValue<usize>| match at {
        SegmentValue::CenterOf(row) if *row < bars.len() => {
            bars[bars.len() - 1 - row].label.clone()
        }
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(bars.len() + 1)
        .y_label_formatter(&label)
        .x_label_formatter(&|ratio| format!("{ratio}"))
        .draw()
        .unwrap();
    let drawn = bars.iter().rev().enumerate().map(|(row, bar)| {
        let colour = if bar.ratio >= 1.0 {
            full_palette::TEAL
        } else {
            full_palette::ORANGE
        };
        Rectangle::new(
            [
                (1.0, SegmentValue::Exact(row)),
                (bar.ratio, SegmentValue::Exact(row + 1)),
            ],
            colour.filled().stroke_width(1),
        )
    });
    chart.draw_series(drawn).unwrap();
    let values = bars.iter().rev().enumerate().map(|(row, bar)| {
        Text::new(
            format!("{:.2}", bar.ratio),
            (bar.ratio.max(1.0) * 1.03, SegmentValue::Exact(row + 1)),
            ("sans-serif", 12),
        )
    });
    chart.draw_series(values).unwrap();
    root.present().unwrap();
}

fn parse(line: &str) -> Option<Bar> {
    let (label, ratio) = line.rsplit_once('\t')?;
    Some(Bar {
        label: label.replace('\t', ": "),
        ratio: ratio.parse().ok()?,
    })
}
