# The part of the report about size: $machine, $lines (how many days and tags), and $results (points: a name, a unit, a size
# and a value). Begins where figures.jq ends. What a goal is about is named here as benches/scale.rs names it.

def is_ci: .name | startswith("CI: ");
def sizes: [$results[] | select(is_ci | not).size] | unique;
def at($name; $size): [$results[] | select(.name == $name and .size == $size).value] | median;
def figure($name; $size): at($name; $size) as $value
    | if $value == null then "" else ($value | short) + (first($results[] | select(.name == $name).unit) | unit) end;
def names: reduce ($results[] | select(is_ci | not).name) as $name ([]; if index([$name]) then . else . + [$name] end);
def growth($name): [sizes[] | at($name; .) | values] | if length < 2 or first <= 0 then null else last / first end;

# Commits and reads, whose p99 may grow to so many times that of the smallest size.
def bounded: names | map(select(test("^(put of a blob|push of an image|tag of any image|read of any .*): p99$")));

def last_day: [$results[] | select(is_ci).size] | max;
def ci: [
    {name: "CI: bytes on the disk for each byte of content", bound: 1.02},
    {name: "CI: bytes of the index for each blob and manifest", bound: 200},
    {name: "CI: bytes written for each byte pushed", bound: 1.5}];

def goals:
    (ci[] | at(.name; last_day) as $value | {title: "\(.name), day \(last_day)", text: "≤ \(.bound)", value: $value, met: ($value <= .bound)}),
    (names[] | select(. == "bytes of the index for each blob and manifest") | at(.; sizes | last) as $value
        | {title: "\(.), \(sizes | last | short) images", text: "≤ 200", value: $value, met: ($value <= 200)}),
    (bounded[] | growth(.) as $value | select($value != null)
        | {title: "\(.), \(sizes | last | short) images to \(sizes | first | short)", text: "≤ 1.5×", value: $value, met: ($value <= 1.5)});

$machine[0] as $m
| "# By size

Written by `\($m.command)` (\($m.seconds) s); not by hand. Of the library, without HTTP: `benches/scale.rs`. An image is a manifest
and a config of its own, a layer that it shares with three others, and base layers; so there are more blobs than images.

| | |
| --- | --- |
\(machine($m))
| date | \($m.date) |

\(busy($m.busy))All points are in [points.tsv](benches/plots/points.tsv); `tools/benchmarks/plot` draws them again. Goals:
",
head(["figure", "reached", "goal", "met"]; ["goal", "met"]),
(goals | [.title, (.value | short), .text, (if .met then "yes" else "**no**" end)] | row),
"
## What is bad by size

\([goals | select(.met | not) | "- \(.title): \(.value | short), to be \(.text)"] | list("- none of the goals is missed"))

## Costs by images in the store

![commits](benches/plots/commits.svg)
![commits by many](benches/plots/commits-many.svg)
![reads](benches/plots/reads.svg)
![questions](benches/plots/questions.svg)
![collections](benches/plots/collections.svg)
![starts](benches/plots/starts.svg)
![room](benches/plots/room.svg)
![memory](benches/plots/memory.svg)
![filling](benches/plots/filling.svg)
",
head(["figure"] + [sizes[] | short] + ["last to first"]; []),
(names[] | . as $name | [$name] + [sizes[] | figure($name; .)] + [growth($name) | times] | row),
"
## A CI day by day

\($lines[0].tags) tags, each pushed again on each of \($lines[0].days) days (`benches/days.rs`); what a tag pointed to before is held for 14 days.

![room of a CI](benches/plots/ci-room.svg)
![writing of a CI](benches/plots/ci-written.svg)
"
