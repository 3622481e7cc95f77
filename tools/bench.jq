# The report of tools/bench: $machine, $lines (what was measured) and $results (each value of each round) as Markdown.

def median: sort | if length == 0 then null elif length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end;

# A number as people read it: three digits that mean something.
def short:
    if . == null then "–"
    elif . == 0 then "0"
    elif fabs >= 100 then round | tostring | [scan("^-?\\d{1,3}(?=(?:\\d{3})*$)|\\d{3}")] | join(",")
    elif fabs >= 10 then . * 10 | round / 10 | tostring
    else . * 100 | round / 100 | tostring end;

def unit: {"mib": " MiB/s", "ops": "/s", "ms": " ms", "mib-resident": " MiB", "bytes": " B", "number": ""}[.];

def of($line; $server): [$results[] | select(.line == $line.name and .server == $server)];

# What several rounds gave: the median, with the least and the most.
def figure($line; $server):
    [of($line; $server)[].value | values] as $values
    | if ($values | length) == 0 then (if of($line; $server) == [] then "" else "–" end)
      elif ($values | length) == 1 then ($values[0] | short) + ($line.unit | unit)
      else ($values | median | short) + ($line.unit | unit) + " (\($values | min | short)–\($values | max | short))" end;

# How many times better orlop is; times and sizes are better when they are less.
def ratio($line; $server):
    ([of($line; "orlop")[].value | values] | median) as $own
    | ([of($line; $server)[].value | values] | median) as $other
    | if $own == null or $other == null or $own <= 0 or $other <= 0 then null
      elif $line.unit == "mib" or $line.unit == "ops" then $own / $other
      else $other / $own end;

def times: if . == null then "" else (if . >= 100 then round else . * 100 | round / 100 end | tostring) + "×" end;

def row: "| " + join(" | ") + " |";

def field($line; $server; $key): [of($line; $server)[] | select(.wrong | not) | .[$key] | values] | median;

def cost($line; $server):
    if [of($line; $server)[] | select(has("p50_ms") and (has("wrong") | not))] == [] then ["", ""]
    else ["\(field($line; $server; "p50_ms") | short) / \(field($line; $server; "p99_ms") | short)",
          (field($line; $server; "server_cpu_us") | short)] end;

def missed: [$lines[] | select(.goal) | . as $line | ratio($line; "docker-registry") as $ratio
    | select($ratio != null and $ratio < .goal)
    | "- \(.title): \($ratio | times), to be \(.goal)×. CPU of the server for each: orlop \(
        field($line; "orlop"; "server_cpu_us") | short) µs, docker-registry \(
        field($line; "docker-registry"; "server_cpu_us") | short) µs; half within \(
        field($line; "orlop"; "p50_ms") | short) and \(field($line; "docker-registry"; "p50_ms") | short) ms."];

def wrong: [$lines[] | . as $line | ("orlop", "docker-registry", "nginx") as $server
    | [of($line; $server)[] | .wrong | values] | select(. != [])
    | "- \($server), \($line.title): \(.[0] | gsub("^wrong: "; "") | gsub("\n+$"; ""))"];

# Whose figures those are, when somebody else was at work.
def busy($percent):
    if $percent > 10 then "The machine was busy with something else when the run began (\($percent) %): these figures are worth little.\n\n" else "" end;

def list($none): if . == [] then $none else join("\n") end;

$machine[0] as $m
| "# Benchmarks

Written by `\($m.command)` (\($m.rounds) of \($m.wanted) rounds, \($m.seconds) s); not by hand. The head of `tools/bench` tells how.

| | |
| --- | --- |
| machine | \($m.cpu), \($m.memory); busy with something else before the run: \($m.busy) % |
| system | \($m.system), \($m.kernel) |
| file system | \($m.disk) |
| orlop | \($m.orlop) |
| docker-registry | \($m.registry) (Debian), filesystem storage |
| nginx | \($m.nginx) (Debian), the same bytes as plain files, sendfile |
| date | \($m.date) |

Server and clients share the cores. Medians of the rounds, with the least and the most of them in brackets. Both registries
sync what they acknowledge. *Goal* is the ratio to docker-registry that orlop is to reach.
",
(["work", "orlop", "docker-registry", "ratio", "goal", "nginx", "ratio to nginx"] | row),
(["---", "--:", "--:", "--:", "--:", "--:", "--:"] | row),
($lines[] | . as $line | [
    .title, figure($line; "orlop"), figure($line; "docker-registry"), (ratio($line; "docker-registry") | times),
    (if .goal then "≥ \(.goal)×" else "" end), figure($line; "nginx"), (ratio($line; "nginx") | times)
] | row),
"
A time counts as its median. Bytes on the disk are allocated ones, so orlop's have up to 4 MiB of journal in them that is
reserved ahead; its tags have their manifests' bytes in them, as docker-registry's have.

## What is bad

\(busy($m.busy))Goals missed:

\(missed | list("- none"))

What failed:

\(wrong | list("- nothing"))

## Times and CPU

Half of the requests and 99 of 100 are done within so many ms; a push of several requests counts whole. CPU is the server's for
each of them, in µs; the clients' is orlop's row in the last column, which tells how much of the machine the measuring takes. It
is left out where it is too little for the kernel's clock.
",
(["work", "orlop ms", "CPU", "docker-registry ms", "CPU", "nginx ms", "CPU", "clients' CPU"] | row),
(["---", "--:", "--:", "--:", "--:", "--:", "--:", "--:"] | row),
($lines[] | select(.command != "") | . as $line
    | [.title] + cost($line; "orlop") + cost($line; "docker-registry") + cost($line; "nginx")
    + [field($line; "orlop"; "client_cpu_us") | short] | row),
"
## Commands

Each line is `orlop-load measure` with these arguments, `--address`, `--json`, a seed of its own, and the server's process
ids. Large pulls and ranges check lengths and not bytes: comparing takes CPU that the server would have.
",
(["work", "arguments"] | row), (["---", "---"] | row),
($lines[] | select(.command != "") | [.title, "`\(.command)`"] | row)
