#include "vm/judge.h"

#include <stdio.h>

#include "vm/outcome.h"

const char *const verdict_names[VERDICT_COUNT] = {
	[VERDICT_PASS] = "PASS",   [VERDICT_FAIL] = "FAIL",       [VERDICT_NOTSUP] = "NOTSUP",
	[VERDICT_ERROR] = "ERROR", [VERDICT_TIMEOUT] = "TIMEOUT", [VERDICT_CRASH] = "CRASH",
};

void judge_start(struct judge *judge, const struct case_list *list, const struct judge_events *events)
{
	*judge = (struct judge){.list = list, .events = *events, .current = -1};
}

unsigned judge_total(const struct judge *judge)
{
	unsigned total = 0;

	for (unsigned i = 0; i < VERDICT_COUNT; i++)
		total += judge->count[i];
	return total;
}

void judge_break(struct judge *judge, const char *how)
{
	if (judge->current >= 0 && !judge->broken[0])
		snprintf(judge->broken, sizeof(judge->broken), "%s", how);
}

/* ---- from outcome to verdict ---- */

struct finding {
	struct span got;
	char why[512];
};

/* A precondition that cannot be set up: the probe must say so in the machine's own cpuid lines. */
static enum verdict judge_notsup(const struct judge *judge, const struct outcome *got,
				 struct finding *finding)
{
	int holds = predicate_holds(got->words, &judge->facts);

	if (holds == 0) {
		snprintf(finding->why, sizeof(finding->why), "the guest says NOTSUP, but %.*s is not so",
			 SPAN_ARGS(got->words));
		return VERDICT_ERROR;
	}
	snprintf(finding->why, sizeof(finding->why), "%.*s", SPAN_ARGS(got->words));
	return VERDICT_NOTSUP;
}

/* Holds @got against the outcomes of @want, any of which may match. */
static bool matches_any(const struct judge *judge, const struct case_want *want, const struct outcome *got,
			struct finding *finding)
{
	const struct case_list *list = judge->list;
	char unused[128];
	struct outcome wanted;

	for (unsigned i = 0; i < want->outcome_count; i++) {
		/* Checked when the list was made. */
		if (outcome_parse(&wanted, list->outcome[want->first_outcome + i], OUTCOME_EXPECTED, unused,
				  sizeof(unused)))
			continue;
		if (outcome_matches(&wanted, got, finding->why, sizeof(finding->why))) {
			finding->why[0] = 0;
			return true;
		}
	}
	if (want->outcome_count > 1)
		snprintf(finding->why, sizeof(finding->why), "wanted one of %u outcomes, got %.*s",
			 want->outcome_count, SPAN_ARGS(got->text));
	return false;
}

static enum verdict judge_outcome(struct judge *judge, const struct case_want *want, struct span text,
				  struct finding *finding)
{
	struct outcome got;

	finding->got = text;
	if (outcome_parse(&got, text, OUTCOME_REPORTED, finding->why, sizeof(finding->why)))
		return VERDICT_ERROR;
	if (got.kind == OUTCOME_ERROR) {
		snprintf(finding->why, sizeof(finding->why), "%.*s", SPAN_ARGS(got.words));
		return VERDICT_ERROR;
	}
	if (got.kind == OUTCOME_NOTSUP)
		return judge_notsup(judge, &got, finding);
	if (!want)
		return VERDICT_ERROR;
	if (matches_any(judge, want, &got, finding) != judge->inverted)
		return VERDICT_PASS;
	if (judge->inverted)
		snprintf(finding->why, sizeof(finding->why), "inverted: wanted anything but %.*s, got it",
			 SPAN_ARGS(got.text));
	return VERDICT_FAIL;
}

static enum verdict error_because(struct finding *finding, const char *why)
{
	snprintf(finding->why, sizeof(finding->why), "%s", why);
	return VERDICT_ERROR;
}

/* A case that ended otherwise than by its own word. */
static enum verdict judge_ending(struct judge *judge, const struct case_want *want, enum ending ending,
				 const char *reason, struct finding *finding)
{
	enum verdict verdict;

	switch (ending) {
	case ENDING_SHUTDOWN: return judge_outcome(judge, want, span_of("SHUTDOWN"), finding);
	case ENDING_HANG: return judge_outcome(judge, want, span_of("HANG"), finding);
	case ENDING_TIMEOUT:
		/* Only a machine without a budget comes here; a hang that is wanted has been seen. */
		verdict = judge_outcome(judge, want, span_of("HANG"), finding);
		if (verdict == VERDICT_PASS)
			return verdict;
		finding->got = (struct span){"", 0};
		snprintf(finding->why, sizeof(finding->why), "no end before the time limit");
		return VERDICT_TIMEOUT;
	case ENDING_CRASH:
		snprintf(finding->why, sizeof(finding->why), "what ran the machine died during the case");
		return VERDICT_CRASH;
	case ENDING_FAILED: return error_because(finding, reason ? reason : "the harness failed");
	case ENDING_EXIT: return error_because(finding, "the machine was switched off during the case");
	case ENDING_DONE: break;
	}
	return error_because(finding, "no end line");
}

static enum verdict judge_case(struct judge *judge, const struct case_want *want, enum ending ending,
			       const char *reason, struct finding *finding)
{
	struct span outcome = {judge->outcome, judge->outcome_size};

	if (judge->has_outcome)
		finding->got = outcome;
	if (judge->broken[0])
		return error_because(finding, judge->broken);
	if (!judge->has_outcome)
		return judge_ending(judge, want, ending, reason, finding);
	if (ending != ENDING_DONE)
		return error_because(finding,
				     ending == ENDING_FAILED && reason
					     ? reason
					     : "the guest reported an outcome, then did not come back");
	return judge_outcome(judge, want, outcome, finding);
}

void judge_begin(struct judge *judge, unsigned index)
{
	judge->current = (int)index;
	judge->has_outcome = false;
	judge->broken[0] = 0;
	judge->properties = (struct properties){0};
}

/* What the hypervisor above has seen. A property that is broken turns a PASS. */
static void judge_properties(struct judge *judge, const struct case_entry *entry, struct judge_result *result,
			     struct finding *finding)
{
	struct properties *properties = &judge->properties;

	result->properties = properties;
	if (result->verdict != VERDICT_PASS || judge->inverted)
		return;
	properties_judge(properties, judge->list, entry, finding->got, finding->why, sizeof(finding->why));
	if (properties->control == PROPERTY_BROKEN || properties->efficiency == PROPERTY_BROKEN)
		result->verdict = VERDICT_FAIL;
}

void judge_end(struct judge *judge, enum ending ending, const char *reason)
{
	struct finding finding = {.got = {"", 0}, .why = ""};
	struct judge_result result = {.index = (unsigned)judge->current};
	const struct case_entry *entry = &judge->list->entry[judge->current];
	char no_want[256] = "";

	result.want = case_expectation(judge->list, entry, &judge->facts, no_want, sizeof(no_want));
	result.verdict = judge_case(judge, result.want, ending, reason, &finding);
	if (result.verdict == VERDICT_ERROR && !finding.why[0])
		snprintf(finding.why, sizeof(finding.why), "%s", no_want);
	judge_properties(judge, entry, &result, &finding);
	result.got = finding.got;
	result.why = finding.why;
	judge->count[result.verdict]++;
	judge->current = -1;
	judge->events.ended(judge->events.owner, &result);
}

/* ---- lines ---- */

static void garbage(struct judge *judge, struct span line)
{
	char how[160];

	if (line.size > 60)
		line.size = 60;
	if (span_printable(line))
		snprintf(how, sizeof(how), "a line that is no report: \"%.*s\"", SPAN_ARGS(line));
	else
		snprintf(how, sizeof(how), "a line of bytes that are not text");
	judge_break(judge, how);
}

/* "trapline 1 SUITE CASES". Again in the middle of a case, the machine was reset. */
static void header_line(struct judge *judge, struct span rest)
{
	uint64_t version, cases;
	struct span word = span_word(&rest);
	struct span suite = span_word(&rest);

	if (judge->current >= 0 && judge->streaming)
		judge_end(judge, ENDING_SHUTDOWN, NULL);
	if (judge->current >= 0) { /* a case's words bind no other case */
		judge_break(judge, "the guest began its report anew");
		return;
	}
	if (!span_number(word, &version) || version != REPORT_VERSION)
		snprintf(judge->fatal, sizeof(judge->fatal), "a report of another version");
	else if (!span_same(suite, judge->list->suite) || !span_number(rest, &cases) ||
		 cases != judge->list->count)
		snprintf(judge->fatal, sizeof(judge->fatal), "the report is not of this image's cases");
	judge->header = true;
}

static bool take_hex32(struct span *rest, uint32_t *value)
{
	uint64_t number;

	if (!span_hex(span_word(rest), &number) || number > UINT32_MAX)
		return false;
	*value = (uint32_t)number;
	return true;
}

static bool cpuid_line(struct judge *judge, struct span rest)
{
	struct machine_facts *facts = &judge->facts;
	struct cpuid_line line;

	if (!take_hex32(&rest, &line.leaf) || !take_hex32(&rest, &line.subleaf))
		return false;
	for (unsigned i = 0; i < 4; i++)
		if (!take_hex32(&rest, &line.reg[i]))
			return false;
	if (rest.size || judge->current >= 0)
		return false;
	for (unsigned i = 0; i < facts->cpuid_count; i++)
		if (facts->cpuid[i].leaf == line.leaf && facts->cpuid[i].subleaf == line.subleaf) {
			facts->cpuid[i] = line;
			return true;
		}
	if (facts->cpuid_count == CPUID_LINES_MAX)
		return false;
	facts->cpuid[facts->cpuid_count++] = line;
	return true;
}

static bool msr_line(struct judge *judge, struct span rest)
{
	uint64_t number;

	return span_hex(span_word(&rest), &number) && span_hex(rest, &number) && judge->current < 0;
}

static void become_ready(struct judge *judge)
{
	if (!judge->ready) {
		judge->ready = true;
		judge->events.ready(judge->events.owner);
	}
}

static void start_line(struct judge *judge, struct span id)
{
	int index = case_list_find(judge->list, id);

	if (!judge->streaming) {
		if (judge->current < 0 || index != judge->current)
			garbage(judge, id);
		return;
	}
	if (judge->current >= 0)
		judge_end(judge, ENDING_DONE, NULL); /* without an end line */
	if (index < 0) {
		snprintf(judge->fatal, sizeof(judge->fatal),
			 "the report starts a case that the image does not hold");
		return;
	}
	become_ready(judge);
	judge->events.started(judge->events.owner, (unsigned)index);
	judge_begin(judge, (unsigned)index);
}

static void end_line(struct judge *judge, struct span rest)
{
	struct span id = span_word(&rest);

	if (judge->current < 0)
		return;
	if (case_list_find(judge->list, id) != judge->current) {
		judge_break(judge, "the end line is of another case");
		return;
	}
	if (judge->has_outcome) {
		judge_break(judge, "two end lines");
		return;
	}
	memcpy(judge->outcome, rest.at, rest.size);
	judge->outcome_size = rest.size;
	judge->has_outcome = true;
	if (judge->streaming)
		judge_end(judge, ENDING_DONE, NULL);
}

/* Of a hypervisor of ours, while a case runs. */
static void hypervisor_line(struct judge *judge, struct span line, struct span rest, bool armed)
{
	bool good = armed ? properties_armed(&judge->properties, rest) : properties_exit(&judge->properties, rest);

	if (!good)
		garbage(judge, line);
}

static void dirty_line(struct judge *judge, struct span rest)
{
	struct span id = span_word(&rest);

	if (!judge->streaming || !span_printable(rest)) {
		garbage(judge, rest);
		return;
	}
	if (judge->current >= 0) {
		judge_break(judge, "the machine's baseline changed before the end line");
		judge_end(judge, ENDING_DONE, NULL);
	}
	if (case_list_find(judge->list, id) >= 0)
		judge->events.dirty(judge->events.owner, id, rest);
}

void judge_line(struct judge *judge, struct span line)
{
	struct span whole, rest, word;

	if (line.size && line.at[line.size - 1] == '\r')
		line.size--;
	if (line.size == 0)
		return;
	whole = rest = line;
	word = span_word(&rest);
	if (line.size > CASE_LINE_MAX) {
		judge_break(judge, "a line that is too long");
		return;
	}
	if (span_equals(word, "trapline")) {
		header_line(judge, rest);
		return;
	}
	/* What a firmware prints before our guest begins is none of our business, but for a hypervisor of ours. */
	if (!judge->header && span_equals(word, "l1") && !judge->fatal[0] && span_printable(rest)) {
		judge->refused = span_equals(span_word(&rest), "cannot");
		snprintf(judge->fatal, sizeof(judge->fatal), "the hypervisor %.*s",
			 (int)(line.size - sizeof("l1")), line.at + sizeof("l1"));
	}
	if (!judge->header || judge->fatal[0])
		return;
	if (span_equals(word, "start"))
		start_line(judge, rest);
	else if (span_equals(word, "end"))
		end_line(judge, rest);
	else if (span_equals(word, "armed"))
		hypervisor_line(judge, whole, rest, true);
	else if (span_equals(word, "exit"))
		hypervisor_line(judge, whole, rest, false);
	else if (span_equals(word, "dirty"))
		dirty_line(judge, rest);
	else if (span_equals(word, "cpuid") && cpuid_line(judge, rest))
		return;
	else if (span_equals(word, "msr") && msr_line(judge, rest))
		return;
	else if (span_equals(whole, "ready") && judge->current < 0)
		become_ready(judge);
	else if (span_equals(whole, "bye") && judge->streaming && judge->current < 0)
		judge->bye = true;
	else
		garbage(judge, whole);
}

bool judge_finish(struct judge *judge, enum ending ending)
{
	if (judge->current >= 0) {
		judge_end(judge, ending, NULL);
		return true;
	}
	return judge->bye;
}
