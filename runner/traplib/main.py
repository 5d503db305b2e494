"""The command line."""

import argparse
import contextlib
import gc
import fnmatch
import os
import shlex
import signal
import subprocess
import sys

from . import (boots, catalog, compare, deviations, html, junit, ktap, lint, listing, live, migration_faults, mutants, paths, policy, published,
               results, summary, targets, untested)
from .errors import (EXIT_EXPECTED, EXIT_HARNESS, EXIT_UNEXPECTED, HarnessError, NothingSelected, TraplineError,
                     UsageError)
from .execute import Executor, Job
from .progress import Progress
from .selection import Selection, shard

VERSION = "1"
EXIT_SKIP = 125  # what git bisect takes for "cannot be judged"
EPILOG = """exit status: 0 everything was as expected, 1 something was not, 2 a wrong command line or
file, 3 the harness failed or the run is incomplete, 5 nothing was selected, 128+n on signal n"""
SELECT_HELP = ("suite, id, beginning of an id, or pattern with * ?; ! in front takes away; "
               "@FILE reads such words from a file; default: everything")


def positive(text):
    """argparse type: a number above zero."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected a number above 0")
    return value


def count(text):
    """argparse type: a whole number from 0 on."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}: expected a number from 0 on")
    return value


def parser():
    """The whole command line."""
    top = argparse.ArgumentParser(prog="trapline", epilog=EPILOG, description="Boots conformance guests under "
                                  "hypervisors and holds what happens against the manuals.")
    top.add_argument("--version", action="version", version=f"trapline {VERSION}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="run cases", epilog=EPILOG)
    run.add_argument("select", nargs="*", metavar="SELECT", help=SELECT_HELP)
    run.add_argument("--target", action="append", metavar="T", help=f"{targets.SPELLINGS}; again for more; "
                     "default: soft, which means each of its profiles")
    run.add_argument("--depth", type=count, metavar="N", help="run the guests under N hypervisors of our own, each a "
                     "guest of the one below it; these are judged too (default: 0)")
    run.add_argument("--move", metavar="every=N[,…]", help="move each guest from one machine to another and back while it "
                     "runs, every N instructions; the words are those of `visor run --move`, and the outcome must be the same")
    run.add_argument("-j", type=count, default=os.cpu_count() or 1, metavar="N", dest="jobs",
                     help="processes at once (default: the number of processors)")
    run.add_argument("--shard", metavar="I/N", help="only every Nth selected case, from the Ith on")
    run.add_argument("--retries", type=count, default=0, metavar="N",
                     help="run a case that was not as expected up to N more times; it counts as flaky")
    run.add_argument("--repeat", type=count, default=1, metavar="N",
                     help="run each case N times and tell how its outcomes are distributed; the worst counts")
    again = run.add_mutually_exclusive_group()
    again.add_argument("--rerun-failed", metavar="RUN", help="only what was not as expected in RUN (or `last`)")
    again.add_argument("--resume", metavar="RUN", help="go on with RUN (or `last`) where it was stopped")
    run.add_argument("--skip-missing", action="store_true", help="a target that cannot run here is no reason to end "
                     "with 3 (its cases are NOTSUP, with the reason)")
    run.add_argument("--live", type=count, default=0, metavar="N", help="besides, move a running guest from one visor to "
                     "another N times; the report draws how long that took")
    run.add_argument("--fail-fast", action="store_true", help="stop at the first case that is not as expected")
    run.add_argument("--timeout", type=positive, metavar="SECONDS", help="wall clock for one case")
    run.add_argument("--max-insns", type=count, metavar="N", help="instructions for one case")
    run.add_argument("--deadline", type=positive, metavar="SECONDS", help="wall clock for the whole run")
    run.add_argument("--dry-run", action="store_true", help="say what would run, and run nothing")
    run.add_argument("--update-deviations", action="store_true", help="write a line for each kind of failure into "
                     "results/deviations; it counts once you have given its reason")
    run.add_argument("-q", "--quiet", action="store_true", help="no progress")
    outputs(run)

    list_ = commands.add_parser("list", help="cases with their expectations and citations; runs nothing")
    list_.add_argument("select", nargs="*", metavar="SELECT", help=SELECT_HELP)
    list_.add_argument("--untested", action="store_true", help="the cells without a case, with the reason, and the "
                       "clauses of the manuals that no case cites")
    form = list_.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="JSON lines, in the words of runner/SCHEMA.md")
    form.add_argument("--csv", action="store_true", help="comma-separated values with a line of names")

    report = commands.add_parser("report", help="the summary and reports of a run, made again")
    report.add_argument("run", metavar="RUN", nargs="?", default="last", help="name, folder or file; default: last")
    outputs(report)

    compare_ = commands.add_parser("compare", help="two runs or two targets: what regressed, was fixed, is new, gone, "
                                   "flaky, different", epilog="exit status: 0 nothing regressed, 1 something did, 2 "
                                   "a run that is not there")
    for side in ("first", "second"):
        compare_.add_argument(side, metavar="RUN[@TARGET]", help="name, folder, file or `last`; @TARGET alone means "
                              "that target of the last run")
    compare_.add_argument("--results", metavar="DIR", help="folder of runs (default: results/runs)")

    merge_ = commands.add_parser("merge", help="runs of shards as one run", epilog=EPILOG)
    merge_.add_argument("run", metavar="RUN", nargs="+", help="name, folder, file or `last`")
    outputs(merge_)

    bisect_ = commands.add_parser("bisect-run", help="for `git bisect run`: build, run, and end with 0, 1 or 125",
                                  epilog="exit status: 0 as expected, 1 not, 125 this commit cannot be judged")
    bisect_.add_argument("--build", default="make -s", metavar="COMMAND", help="default: make -s; empty for none")
    bisect_.add_argument("words", nargs=argparse.REMAINDER, metavar="ARGUMENTS", help="those of `trapline run`")

    lint_ = commands.add_parser("lint", help="check the tables: citations, ids, the inventory")
    lint_.add_argument("suite", nargs="*", metavar="SUITE", help="default: all")

    mutants_ = commands.add_parser("mutants", help="break the software CPU, one check at a time: some case must notice",
                                   epilog=EPILOG)
    mutants_.add_argument("mutant", nargs="*", metavar="MUTANT", help="names or patterns of `visor run --list-breaks`; "
                          "default: all that some case could notice")
    kind = mutants_.add_mutually_exclusive_group()
    kind.add_argument("--gates", action="store_true", help="only the gates of opcodes.def (MNEMONIC.GATE)")
    kind.add_argument("--checks", action="store_true", help="only the named checks of checks.def")
    mutants_.add_argument("--move", metavar="every=N[,…]", help="instead: leave out one field of the state that is moved, or "
                          "one way in which written pages are logged, while the guests of these suites are moved as `run "
                          "--move` says (default suite: migration)")
    mutants_.add_argument("--skip-explained", action="store_true",
                          help="leave out what results/equivalent_mutants explains, instead of showing that it survives")
    mutants_.add_argument("--suite", action="append", metavar="SUITE", help="again for more; default: all")
    mutants_.add_argument("--cases", action="append", metavar="GLOB", help="let only these cases notice; again for more; default: all")
    mutants_.add_argument("--target", action="append", metavar="T", help="as for run; default: both profiles of soft, and "
                          "both without what processors may lack")
    mutants_.add_argument("--shard", metavar="I/N", help="only every Nth mutant, from the Ith on; merge makes one run of all")
    mutants_.add_argument("--resume", metavar="RUN", help="go on with RUN (or `last`) where it was stopped")
    mutants_.add_argument("--deadline", type=positive, metavar="SECONDS", help="wall clock for the whole run")
    mutants_.add_argument("--dry-run", action="store_true", help="say which mutants would be judged, and judge none")
    mutants_.add_argument("-q", "--quiet", action="store_true", help="no progress")
    mutants_.add_argument("-j", type=count, default=os.cpu_count() or 1, metavar="N", dest="jobs",
                          help="processes at once (default: the number of processors)")
    outputs(mutants_)

    published_ = commands.add_parser("published", help="published bugs of hypervisors: planted in the software CPU, each must "
                                     "fail its case", epilog="exit status: 0 all are caught, 1 not, 2 a wrong command line "
                                     "or file")
    published_.add_argument("bug", nargs="*", metavar="BUG", help="references, names of checks or ids, or patterns; default: all")
    published_.add_argument("--list", action="store_true", help="only tell them, and what is untested; runs nothing")
    published_.add_argument("-j", type=count, default=os.cpu_count() or 1, metavar="N", dest="jobs",
                            help="processes at once (default: the number of processors)")

    commands.add_parser("targets", help="what cases can run on, here")

    faults = commands.add_parser("migration-faults", help="move a guest many times, with a fault at a random place each time")
    faults.add_argument("--count", type=int, default=500, metavar="N", help="migrations (default: 500)")
    faults.add_argument("--seed", type=int, metavar="S", help="of the faults; the log names it")
    faults.add_argument("--only", type=int, metavar="N", help="the Nth migration of that seed alone")
    faults.add_argument("-v", "--verbose", action="store_true", help="a line for each migration")
    boot = commands.add_parser("boot", help="run cases on one foreign machine, records on standard output: what `run` "
                               "starts for it")
    boot.add_argument("--target", required=True, metavar="T", help="a foreign machine, as for run")
    boot.add_argument("--cases", required=True, metavar="FILE", help="lines of INDEX ID, in the image's order")
    boot.add_argument("--smp", type=int, default=1, metavar="N", help="processors of the machine")
    boot.add_argument("--depth", type=int, default=0, metavar="N", help="hypervisors of ours under the guest")
    boot.add_argument("--move", metavar="every=N[,…]", help="move the guest while it runs (linux-kvm)")
    boot.add_argument("--timeout", type=positive, default=10.0, metavar="SECONDS", help="wall clock for one case")
    boot.add_argument("image", metavar="IMAGE")
    return top


def outputs(command):
    """Options of the commands that write reports."""
    command.add_argument("--junit", metavar="FILE", help="write JUnit XML")
    command.add_argument("--ktap", action="store_true", help="KTAP on standard output, the summary elsewhere")
    command.add_argument("--html", metavar="FILE", help="the HTML report (default: report.html in the run's folder)")
    command.add_argument("--results", metavar="DIR", help="folder of runs (default: results/runs)")


def results_folder(options):
    """Where runs are kept."""
    return options.results or paths.default_results()


def load_suites(selection, cells=False):
    """The suites that a selection concerns, read from their guests."""
    images = paths.images()
    names = selection.suites(images)
    suites = [catalog.load(name, images[name]) for name in names]
    ids = [case_id for suite in suites for case_id in suite.cases]
    if cells:
        ids += [untested.cell_id({"suite": suite.name, **cell}) for suite in suites for cell in suite.cells]
    unused = selection.unused(ids)
    if unused:
        raise NothingSelected(f"{unused[0]}: no case matches; `trapline list` shows them all")
    return [suite for suite in suites if suite.cases]


def command_list(options):
    """trapline list"""
    selection = Selection(options.select)
    suites = load_suites(selection, options.untested)
    shown = untested if options.untested else listing
    records = (untested.export(suites, selection) if options.untested else
               [case for suite in suites for case_id, case in suite.cases.items() if selection.matches(case_id)])
    if not records:
        raise NothingSelected("nothing is selected")
    sys.stdout.write(shown.as_json(records) if options.json else shown.as_csv(records) if options.csv else
                     shown.for_people(records))
    return EXIT_EXPECTED


def command_lint(options):
    """trapline lint"""
    unknown = set(options.suite) - set(paths.images())
    if unknown:
        raise UsageError(f"{min(unknown)}: there is no such suite")
    errors = lint.check(options.suite)
    for error in errors:
        print(error, file=sys.stderr)
    print(f"lint: {len(errors)} errors" if errors else "lint: every row and cell is in order")
    return EXIT_UNEXPECTED if errors else EXIT_EXPECTED


def command_published(options):
    """trapline published"""
    bugs, untested = published.table()
    chosen = published.select(bugs, options.bug)
    if not options.list:
        published.run(chosen, options.jobs)
    for bug in chosen:
        print(f"{bug.verdict or 'listed':8} {bug.named()}: {bug.what}\n{'':9}{bug.case} --break {bug.name}")
    if not options.bug:
        for reference, why, looked_up in untested:
            print(f"untested {published.named(reference, looked_up)}: {why}")
    caught = sum(bug.verdict == "caught" for bug in chosen)
    print(f"{len(chosen)} cases of {len({bug.reference for bug in chosen})} published bugs"
          + ("" if options.list else f": {caught} caught, {len(chosen) - caught} missed")
          + ("" if options.bug else f"; {len(untested)} untested"))
    return 0 if options.list or caught == len(chosen) else 1


def command_targets(_options):
    """trapline targets"""
    sys.stdout.write(targets.describe())
    return EXIT_EXPECTED


def mutant_options(options):
    """The run that is resumed (None: a new one), with the options that it takes from there."""
    if not options.resume:
        return None
    if (options.mutant or options.suite or options.target or options.shard or options.gates or options.checks
            or options.move or options.cases):
        raise UsageError("--resume takes its mutants, suites, targets, cases and moves from the run")
    previous = results.Run.read(results.find(options.resume, results_folder(options)))
    what = previous.header.get("mutants")
    if not what:
        raise UsageError(f"{options.resume}: not a run of mutants; trapline run --resume goes on with it")
    options.mutant, options.target, options.shard = (previous.header[key] for key in ("select", "targets", "shard"))
    options.suite, options.gates, options.checks = what["suites"] if what["chosen"] else None, what["gates"], what["checks"]
    options.skip_explained, options.move, options.cases = what["skip_explained"], what.get("move"), what.get("cases")
    return previous


def chosen_mutants(options, hunt):
    """(those to judge, checks that are nobody's): by the command line, and by what the suites hold."""
    chosen = mutants.select(options.mutant, options.gates, options.checks, hunt.moving())
    if options.skip_explained:
        chosen = [name for name in chosen if not mutants.reason(name, hunt.known)]
    if options.shard:
        chosen = shard(chosen, options.shard)
    mine, nobodys = hunt.concerned(chosen)
    named = set(options.mutant)  # spelt out: somebody wants to know
    return (mine + [name for name in nobodys if name in named],
            [name for name in nobodys if name not in named])


def mutants_header(folder, options, hunt, suites, count_):
    """The first record of a run of mutants."""
    names = [suite.name for suite in suites]
    return {"t": "run", "schema": results.SCHEMA, "trapline": VERSION, "run": folder.name, "commit": results.commit(),
            "command": sys.argv, "select": options.mutant,
            "targets": list(dict.fromkeys(place.target.name for place in hunt.places)), "shard": options.shard,
            "selected": count_, "host": results.host(),
            "reproduce": {mutants.ON: {mutants.SUITE: mutants.reproduction(options)}},
            "mutants": {"suites": names, "chosen": bool(options.suite), "gates": options.gates,
                        "checks": options.checks, "skip_explained": options.skip_explained, "move": options.move, "cases": options.cases}}


def open_mutants(options, previous, hunt, suites, chosen, told):
    """A new results file with its first records, or the one that is resumed."""
    if previous:
        return results.Writer(previous.path.parent, previous)
    folder = results.new_folder(results_folder(options))
    writer = results.Writer(folder)
    writer.record(**mutants_header(folder, options, hunt, suites, len(chosen)))
    for record in [mutants.case_record(name) for name in chosen] + told:
        writer.record(**record)
    return writer


def command_mutants(options):
    """trapline mutants"""
    if options.jobs < 1:
        raise UsageError("-j 0: expected at least one process")
    previous = mutant_options(options)
    suites = load_suites(Selection(options.suite or ([mutants.MOVED_SUITE] if options.move else [])))
    hunt = mutants.Hunt(targets.parse(options.target or mutants.default_targets(options.move), 0, options.move), suites, options.jobs, options.cases)
    mutants.select(options.mutant, moving=hunt.moving())  # which refuses wrong words before anything runs
    with interruptible(hunt) as caught:
        told = hunt.learn()
        chosen, unreached = ([], []) if hunt.why_stopped else chosen_mutants(options, hunt)
        if options.dry_run:
            print("\n".join(chosen))
            return EXIT_EXPECTED
        if hunt.why_stopped:
            return 128 + caught[0]
        if not chosen and not previous:
            raise NothingSelected("no mutant is selected that a case could notice")
        writer = open_mutants(options, previous, hunt, suites, chosen + unreached, told)
        judged = {case_id for _, case_id in writer.run.ends}
        chosen, unreached = ([name for name in part if f"{mutants.SUITE}.{name}" not in judged]
                             for part in (chosen, unreached))
        progress = Progress(len(chosen), options.quiet, "mutants")

        def ended(record):
            writer.record(**record)
            progress.add(1, not record["expected"])

        try:
            for name in unreached:
                writer.record(**hunt.unreached(name))
            hunt.run(chosen, lambda name: writer.record(t="start", target=mutants.ON, id=f"{mutants.SUITE}.{name}"), ended,
                     options.deadline)
            writer.record(t="done", complete=not hunt.why_stopped, why=hunt.why_stopped or "")
        finally:
            progress.close()
            writer.close()
    if hunt.why_stopped:
        print(f"trapline: stopped: {hunt.why_stopped}", file=sys.stderr)
    status = conclude(writer.run, options)
    return 128 + caught[0] if caught else status


def command_report(options):
    """trapline report"""
    path = results.find(options.run, results_folder(options))
    return conclude(results.Run.read(path), options)


def command_compare(options):
    """trapline compare"""
    comparison = compare.Comparison(options.first, options.second, results_folder(options))
    print("\n".join(map(summary.clean, comparison.lines())))
    return EXIT_UNEXPECTED if comparison.bad() else EXIT_EXPECTED


def command_merge(options):
    """trapline merge"""
    folder = results_folder(options)
    return conclude(compare.merge([results.find(run, folder) for run in options.run], folder), options)


def command_bisect_run(options):
    """trapline bisect-run"""
    if options.build:
        built = subprocess.run(options.build, shell=True, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False,
                               cwd=paths.TREE)
        if built.returncode:
            return EXIT_SKIP
    ran = subprocess.run([sys.executable, str(paths.program()), "run", "-q", *options.words],
                         stdin=subprocess.DEVNULL, check=False)
    return ran.returncode if ran.returncode in (EXIT_EXPECTED, EXIT_UNEXPECTED) else EXIT_SKIP


def conclude(run, options):
    """Writes what was asked for, prints the summary, and says how it ends."""
    page = options.html or run.path.parent / "report.html"
    try:
        html.write(run, page)
        if options.junit:
            junit.write(run, options.junit)
    except OSError as error:
        raise HarnessError(f"{error.filename}: {error.strerror}") from error
    say = sys.stderr if options.ktap else sys.stdout
    if options.ktap:
        print("\n".join(ktap.lines(run)))
    color = say.isatty() and "NO_COLOR" not in os.environ
    print("\n".join(summary.lines(run, color)), file=say)
    print(f"report: {paths.shown(page)}", file=say)
    missing = {} if run.header.get("skip_missing") else run.missing()
    for target, why in missing.items():
        print(f"trapline: {summary.clean(f'{target} did not run: {why}')}", file=sys.stderr)
    if not run.done:
        command = "mutants" if "mutants" in run.header else "run"
        print(f"the run is incomplete: trapline {command} --resume {run.path.parent.name}", file=sys.stderr)
    if missing or not run.done:
        return EXIT_HARNESS
    return EXIT_UNEXPECTED if summary.failures(run) else EXIT_EXPECTED


class Plan:
    """What a run command comes to: suites, selected ids, targets, policies."""

    def __init__(self, options):
        self.options, self.previous = options, None
        name = options.resume or options.rerun_failed
        if name:
            self.previous = results.Run.read(results.find(name, results_folder(options)))
            if "mutants" in self.previous.header:
                raise UsageError(f"{name}: a run of mutants; trapline mutants --resume goes on with it")
        words = options.select
        if options.resume:
            if words or options.target or options.shard or options.depth is not None or options.move:
                raise UsageError("--resume takes its selection, targets, depth and moves from the run")
            words = self.previous.header["select"]
            options.target = self.previous.header.get("spelled") or self.previous.header["targets"]
            options.shard = self.previous.header["shard"]
        if self.previous and options.depth is None:
            options.depth = self.previous.header.get("depth", 0)
        options.depth = options.depth or 0
        if self.previous and not options.move:
            options.move = self.previous.header.get("move")
        self.words, self.selection = words, Selection(words)
        self.suites = load_suites(self.selection)
        self.policies = {suite.name: policy.load(suite.name, options.timeout, options.max_insns)
                         for suite in self.suites}
        self.spelled = options.target or self.policy_targets()
        self.targets = targets.parse(self.spelled, options.depth, options.move)
        self.ids = self.select()

    def policy_targets(self):
        """The targets that the suites' policies name, for a command line without --target."""
        return [name for suite in self.suites for name in self.policies[suite.name].targets]

    def select(self):
        """{(target name, suite name): ids}"""
        chosen = [(suite.name, case_id) for suite in self.suites for case_id in suite.cases
                  if self.selection.matches(case_id)]
        if self.options.shard:
            chosen = shard(chosen, self.options.shard)
        ids = {}
        for target in self.targets:
            for suite_name, case_id in chosen:
                if self.wanted(target.name, case_id):
                    ids.setdefault((target.name, suite_name), []).append(case_id)
        return ids

    def wanted(self, target, case_id):
        """Leaves out what a run that is resumed has, or what did not fail in one that is run again."""
        if self.options.resume:
            return (target, case_id) not in self.previous.ends or target in self.previous.missing()
        if self.options.rerun_failed:
            end = self.previous.ends.get((target, case_id))
            return end is not None and not end["expected"]
        return True

    def total(self):
        """How many cases will run."""
        return sum(len(ids) for ids in self.ids.values())

    def jobs(self, repeat=1):
        """The cases in shares, so that every process has about as much to do."""
        suites = {suite.name: suite for suite in self.suites}
        by_name = {target.name: target for target in self.targets}
        shares = max(1, -(-self.options.jobs // max(1, len(self.ids))))
        return [Job(by_name[target], suites[suite], self.policies[suite], part, repeat=repeat)
                for (target, suite), ids in self.ids.items()
                for part in split(ids, shares)]

    def header(self, folder):
        """The first record of the results."""
        return {"t": "run", "schema": results.SCHEMA, "trapline": VERSION, "run": folder.name,
                "commit": results.commit(), "command": sys.argv, "select": self.words,
                "targets": [target.name for target in self.targets], "spelled": self.spelled, "shard": self.options.shard,
                "depth": self.options.depth, "move": self.options.move, "skip_missing": self.options.skip_missing, "selected": self.total(), "host": results.host(),
                "reproduce": {target.name: {suite.name: target.reproduction(
                    suite.image, self.policies[suite.name], "{id}").replace("'{id}'", "{id}")
                    for suite in self.suites} for target in self.targets}}


def split(ids, shares):
    """The list in @shares parts of about the same length, none empty."""
    size = -(-len(ids) // shares)
    return [ids[start:start + size] for start in range(0, len(ids), size)]


def open_results(plan, options):
    """A new results file with its first records, or the one that is resumed."""
    if options.resume:
        return results.Writer(plan.previous.path.parent, plan.previous)
    folder = results.new_folder(results_folder(options))
    writer = results.Writer(folder)
    writer.record(**plan.header(folder))
    for suite in plan.suites:
        writer.lines(suite.records, [line + b"\n" for line in suite.lines])
    return writer


def run_with_retries(plan, options, executor):
    """Runs the plan; then again what was not as expected, as often as the command line says."""
    executor.run(plan.jobs())
    for time in range(2, options.repeat + 1):
        executor.run(plan.jobs(repeat=time))
    suites = {suite.name: suite for suite in plan.suites}
    by_name = {target.name: target for target in plan.targets}
    for attempt in range(2, options.retries + 2):
        bad = {}
        for (target, case_id), end in executor.ends.items():
            if not end["expected"]:
                bad.setdefault((target, case_id.split(".")[0]), []).append(case_id)
        executor.progress.total += sum(len(ids) for ids in bad.values())
        executor.run([Job(by_name[target], suites[suite], plan.policies[suite], ids, attempt)
                      for (target, suite), ids in bad.items()])


def stale_lines(plan, known, run):
    """Deviations that this run should have met and did not."""
    ids = [case_id for suite in plan.suites for case_id in suite.cases]
    found = []
    for target in plan.targets:
        ran = {case_id for name, case_id in run.ends if name == target.name}
        found += [line for line in known.stale([target.name], ids, ran) if line not in found]
    return found


@contextlib.contextmanager
def interruptible(what):
    """The first interrupt calls what.stop(), the second ends us at once. Gives the list of signals that came."""
    caught = []

    def interrupt(number, _frame):
        if caught:
            os._exit(128 + number)
        caught.append(number)
        what.stop("interrupted")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    yield caught


def command_run(options):
    """trapline run"""
    if options.jobs < 1:
        raise UsageError("-j 0: expected at least one process")
    plan = Plan(options)
    known = deviations.load(depth=options.depth, move=options.move)
    if not plan.total() and not options.resume:
        raise NothingSelected("nothing is selected")
    if options.dry_run:
        for (target, suite), ids in plan.ids.items():
            print("\n".join(f"{target}\t{case_id}" for case_id in ids))
        return EXIT_EXPECTED
    writer = open_results(plan, options)
    progress = Progress(plan.total() * max(1, options.repeat), options.quiet)
    executor = Executor(writer, progress, options.jobs, known, options.fail_fast, options.deadline)
    with interruptible(executor) as caught:
        try:
            run_with_retries(plan, options, executor)
            for record in live.moves(options.live if not executor.why_stopped else 0):
                writer.record(**record)
            for line in stale_lines(plan, known, writer.run):
                writer.record(t="stale", where=line.where, line=line.text)
            writer.record(t="done", complete=not executor.why_stopped, why=executor.why_stopped or "")
        finally:
            progress.close()
            writer.close()
    if options.update_deviations:
        count = deviations.update(writer.run.ends, depth=options.depth, move=options.move)
        print(f"{count} lines proposed in {paths.shown(deviations.folder())}; each needs its reason", file=sys.stderr)
    if executor.why_stopped:
        print(f"trapline: stopped: {executor.why_stopped}", file=sys.stderr)
    status = conclude(writer.run, options)
    if options.fail_fast and status == EXIT_HARNESS and executor.why_stopped.startswith("--fail-fast"):
        return EXIT_UNEXPECTED
    return 128 + caught[0] if caught else status


COMMANDS = {"run": command_run, "list": command_list, "report": command_report, "lint": command_lint,
            "published": command_published, "targets": command_targets, "boot": boots.command_boot,
            "compare": command_compare, "merge": command_merge, "bisect-run": command_bisect_run, "mutants": command_mutants,
            "migration-faults": migration_faults.command_migration_faults}


def main():
    """Runs the command line; returns the exit status."""
    gc.disable()  # what is read stays to the end, and looking for garbage in it took a third of the time
    options = parser().parse_args()
    try:
        return COMMANDS[options.command](options)
    except TraplineError as error:
        print(f"trapline: {summary.clean(str(error))}", file=sys.stderr)
        return error.status
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
