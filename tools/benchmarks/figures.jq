# Figures as both parts of the report need them; put before the program of each. Of the table, $lines is what was measured
# and $results each value of each round.

def median: sort | if length == 0 then null elif length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end;

# A number as people read it: three digits that mean something.
def short:
    if . == null then "–"
    elif . == 0 then "0"
    elif fabs >= 100 then round | tostring | [scan("^-?\\d{1,3}(?=(?:\\d{3})*$)|\\d{3}")] | join(",")
    elif fabs >= 10 then . * 10 | round / 10 | tostring
    else . * 100 | round / 100 | tostring end;

def unit: {"mib": " MiB/s", "ops": "/s", "ms": " ms", "us": " µs", "mib-resident": " MiB", "bytes": " B", "times": "×"}[.] // "";

def times: if . == null then "" else (if . >= 100 then round else . * 100 | round / 100 end | tostring) + "×" end;

def row: "| " + join(" | ") + " |";

def list($none): if . == [] then $none else join("\n") end;

# The head of a table; all columns but the first, and those named, are numbers.
def head($columns; $words): ($columns | row),
    ($columns | [.[0] | "---"] + [.[1:][] | . as $it | if any($words[]; . == $it) then "---" else "--:" end] | row);

# What the figures depend on.
def machine($m): "| machine | \($m.cpu), \($m.memory); busy with something else before the run: \($m.busy) % |
| system | \($m.system), \($m.kernel) |
| file system | \($m.disk) |
| orlop | \($m.orlop) |";

# Whose figures those are, when somebody else was at work.
def busy($percent):
    if $percent > 10 then "The machine was busy with something else when the run began (\($percent) %): these figures are worth little.\n\n" else "" end;

# A goal: so many times better than something, or a bound.
def goal:
    (capture("^(?<than>[a-z][a-z0-9-]*)\\*(?<times>[0-9.]+)$") | .times |= tonumber)
    // (capture("^(?<sign>[<>]=?)(?<bound>[0-9.]+)$") | .bound |= tonumber)
    // error("no goal: \(.)");

def holds($value; $sign; $bound):
    if $sign == "<" then $value < $bound elif $sign == "<=" then $value <= $bound
    elif $sign == ">" then $value > $bound else $value >= $bound end;

def sign: {"<=": "≤", ">=": "≥"}[.] // .;
