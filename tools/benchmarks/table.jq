# The part of the report that is a table: $machine, $lines (what was measured) and $results (each value of each round) as
# Markdown. Begins where figures.jq ends.

def of($line; $server): [$results[] | select(.line == $line and .server == $server)];

def values($line; $server): [of($line; $server)[].value | values];

# What several rounds gave: the median, with the least and the most.
def figure($line; $server):
    values($line.name; $server) as $values
    | if ($values | length) == 0 then (if of($line.name; $server) == [] then "" else "–" end)
      elif ($values | length) == 1 then ($values[0] | short) + ($line.unit | unit)
      else ($values | median | short) + ($line.unit | unit) + " (\($values | min | short)–\($values | max | short))" end;

# How many times better orlop is than another server, than the limit, or than itself at another line; times and sizes are
# better when they are less.
def ratio($line; $than):
    (values($line.name; "orlop") | median) as $own
    | (if any($lines[]; .name == $than) then values($than; "orlop") else values($line.name; $than) end | median) as $other
    | if $own == null or $other == null or $own <= 0 or $other <= 0 then null
      elif $line.unit == "mib" or $line.unit == "ops" then $own / $other
      else $other / $own end;

# All goals of a line: in words, what was reached of it, and whether that is enough; null where there is no figure.
def goals: . as $line | .goals | split(" ")[] | select(. != "-") | goal
    | if .than then ratio($line; .than) as $found | {
        text: ("≥ \(.times)× " + (if .than == "limit" then "the limit, \(figure($line; "limit"))"
            else .than as $than | ([$lines[] | select(.name == $than) | "that of: \(.title)"] | first) // $than end)),
        found: ($found | times), met: (if $found == null then null else $found >= .times end)}
      else (values($line.name; "orlop") | median) as $found | {
        text: "\(.sign | sign) \(.bound | short)\($line.unit | unit)", found: (($found | short) + ($line.unit | unit)),
        met: (if $found == null then null else holds($found; .sign; .bound) end)} end;

def verdict: if .met == null then "?" elif .met then "yes, \(.found)" else "**no**, \(.found)" end;

def field($line; $server; $key): [of($line.name; $server)[] | select(.wrong | not) | .[$key] | values] | median;

def cost($line; $server):
    if [of($line.name; $server)[] | select(has("p50_ms") and (has("wrong") | not))] == [] then ["", ""]
    else ["\(field($line; $server; "p50_ms") | short) / \(field($line; $server; "p99_ms") | short)",
          (field($line; $server; "server_cpu_us") | short)] end;

# Where the time of a line goes, as far as this run tells.
def spent: . as $line | [("orlop", "docker-registry", "nginx") as $server
    | field($line; $server; "server_cpu_us") | values | "\($server) \(short) µs"]
    | if . == [] then "" else " CPU of the server for each: " + join(", ") + "." end;

def missed: [$lines[] | . as $line | goals | select(.met == false)
    | "- \($line.title): \(.found), to be \(.text).\($line | spent)"];

def unknown: [$lines[] | . as $line | goals | select(.met == null) | "- \($line.title): to be \(.text)"];

def wrong: [$lines[] | . as $line | ("orlop", "docker-registry", "nginx") as $server
    | [of($line.name; $server)[] | .wrong | values] | select(. != [])
    | "- \($server), \($line.title): \(.[0] | gsub("^wrong: "; "") | gsub("\n+$"; ""))"];

# In the order in which the project's goals stand, whenever it was measured.
def ordered: ["push-", "small-", "pull-", "head", "get", "put-tag", "list", "delete-", "ranges", "collect-", "under-load-",
    "blob-", "tag-", "start", "memory-"] as $order
    | sort_by(.name as $name | first($order | to_entries[] | select(.value as $start | $name | startswith($start)).key) // 99);

def is_limit: .name | startswith("limit-");

($lines | ordered) as $lines
| $machine[0] as $m
| "# Benchmarks

Written by `\($m.command)` (\($m.rounds) of \($m.wanted) rounds, \($m.seconds) s); not by hand. The head of `tools/bench` tells
how. What costs by size is [below](#by-size), when `tools/bench --scale` was run.

| | |
| --- | --- |
\(machine($m))
| docker-registry | \($m.registry) (Debian), filesystem storage |
| nginx | \($m.nginx) (Debian), the same bytes as plain files, sendfile |
| date | \($m.date) |

Server and clients share the cores. Medians of the rounds, with the least and the most of them in brackets. Both registries
sync what they acknowledge: before each answer to a PUT of a blob, of a manifest or tag, and to a DELETE, its bytes, its names
and the directories are on the disk.
",
head(["work", "orlop", "docker-registry", "ratio", "nginx", "ratio to nginx", "goals", "met"]; ["goals", "met"]),
($lines[] | select(is_limit | not) | . as $line | [
    .title, figure($line; "orlop"), figure($line; "docker-registry"), (ratio($line; "docker-registry") | times),
    figure($line; "nginx"), (ratio($line; "nginx") | times), ([goals.text] | join("; ")), ([goals | verdict] | join("; "))
] | row),
"
A time counts as its median. Bytes on the disk are allocated ones, so orlop's have up to 4 MiB of journal in them that is
reserved ahead; those of very many things were stored through the library alone. *Fresh* memory is what the host has taken back
and has to give again when the page cache grows; *recycled* is what this machine had a moment ago.

## What is bad

\(busy($m.busy))Goals missed:

\(missed | list("- none"))

Goals that nothing was measured for:

\(unknown | list("- none"))

What failed:

\(wrong | list("- nothing"))

## What the machine can do

Each by itself, in this run: `orlop-load limits`. The limit of a push by many clients is what two cores, or the disk, allow when
receiving, sending, hashing and writing a byte cost what they cost there; that of one client is the SHA-256 of one core.
",
head(["part", "figure"]; []),
($lines[] | select(is_limit) | . as $line | [.title, figure($line; "limit")] | row),
"
## Times and CPU

Half of the requests and 99 of 100 are done within so many ms; a push of several requests counts whole. CPU is the server's for
each of them, in µs; the clients' is orlop's row in the last column, which tells how much of the machine the measuring takes. It
is left out where it is too little for the kernel's clock.
",
head(["work", "orlop ms", "CPU", "docker-registry ms", "CPU", "nginx ms", "CPU", "clients' CPU"]; []),
($lines[] | . as $line | select(cost($line; "orlop") != ["", ""])
    | [.title] + cost($line; "orlop") + cost($line; "docker-registry") + cost($line; "nginx")
    + [field($line; "orlop"; "client_cpu_us") | short] | row),
"
## Commands

Each line is `orlop-load measure` with these arguments, `--address`, `--json`, a seed of its own, and the server's process
ids; or what stands there. Large pulls and ranges check lengths and not bytes: comparing takes CPU that the server would have.
",
head(["work", "arguments"]; ["arguments"]),
($lines[] | select(.command != "") | [.title, "`\(.command)`"] | row)
