#include "migrate/converge.h"

/* What makes a further round worth while although the guest might be stopped: less downtime than this is
 * noise. */
#define WORTH_NS 500000u
/* More rounds than this for the sake of a shorter stop are not made. */
#define ROUNDS_FOR_LESS 12u
/* A window of the rate: what is not used in it is lost. */
#define WINDOW_NS 100000000u
/* The shortest rest. */
#define REST_NS 1000000u

uint64_t converge_time(uint64_t bytes, uint64_t rate)
{
	unsigned __int128 ns = (unsigned __int128)bytes * 1000000000u;

	if (bytes == 0)
		return 0;
	if (rate == 0)
		return UINT64_MAX;
	ns = (ns + rate - 1) / rate;
	return ns > UINT64_MAX ? UINT64_MAX : (uint64_t)ns;
}

static uint64_t rate_of(uint64_t bytes, uint64_t ns)
{
	unsigned __int128 rate = ns ? (unsigned __int128)bytes * 1000000000u / ns : 0;

	return rate > UINT64_MAX ? UINT64_MAX : (uint64_t)rate;
}

/* The guest wrote more than its share of what was sent, twice in a row: it rests more. */
static void throttle(struct converge *converge, const struct converge_limits *limits, uint64_t bytes,
		     uint64_t dirty)
{
	if (!limits->throttles)
		return;
	if (dirty == 0 || (unsigned __int128)dirty * 100 <= (unsigned __int128)bytes * limits->threshold) {
		converge->fast = 0;
		return;
	}
	if (++converge->fast < 2)
		return;
	converge->fast = 0;
	converge->throttle = converge->throttle ? converge->throttle + limits->increment : limits->initial;
	if (converge->throttle > limits->most)
		converge->throttle = limits->most;
}

/* Short rounds tell little of the throughput: they count by their bytes. */
static void measure(struct converge *converge, uint64_t bytes, uint64_t busy)
{
	uint64_t rate = rate_of(bytes, busy), weight = bytes >> 20 < 8 ? (bytes >> 20) + 1 : 8;

	if (rate == 0)
		return;
	if (converge->throughput == 0)
		converge->throughput = rate;
	else
		converge->throughput = (uint64_t)(((unsigned __int128)converge->throughput * (8 - weight) +
						   (unsigned __int128)rate * weight) /
						  8);
}

bool converge_round(struct converge *converge, const struct converge_limits *limits, uint64_t bytes,
		    uint64_t busy, uint64_t took, uint64_t dirty)
{
	uint64_t last = converge->last, rate;
	bool shrinks = converge->rounds == 0 || dirty < last - last / 4;

	(void)took;
	measure(converge, bytes, busy);
	rate = limits->bandwidth ? limits->bandwidth : converge->throughput;
	converge->expected = converge_time(dirty, rate);
	converge->last = dirty;
	converge->rounds++;
	if (converge->expected <= limits->downtime) {
		/* Allowed; a round more makes it shorter as long as it halves what is left or so. */
		if (converge->expected <= WORTH_NS || !shrinks || converge->rounds >= ROUNDS_FOR_LESS)
			return true;
		return false;
	}
	throttle(converge, limits, bytes, dirty);
	return false;
}

uint64_t rate_wait(struct rate *rate, uint64_t limit, uint64_t now, uint64_t bytes)
{
	uint64_t due;

	if (limit == 0) {
		rate->limit = 0;
		return 0;
	}
	if (rate->limit != limit || now < rate->began) {
		*rate = (struct rate){.limit = limit, .began = now};
	}
	rate->bytes += bytes;
	due = rate->began + converge_time(rate->bytes, limit);
	/* Less than a system sleeps precisely is put off: it is due with what comes next. */
	if (due > now)
		return due - now < REST_NS ? 0 : due - now;
	/* Slower than allowed: what was not used may be made up for within a window. */
	if (now - due > WINDOW_NS)
		*rate = (struct rate){.limit = limit, .began = now};
	return 0;
}
