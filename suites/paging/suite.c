/* suite.c: the rows of the paging suite, family by family. */
#include "caching.h"
#include "crossing.h"
#include "product.h"
#include "words.h"

const char suite_name[] = "paging";

#define FAMILY(name) static void name(struct cell *x)

FAMILY(product){
#include "product.def"
}

FAMILY(unusable){
#include "unusable.def"
}

FAMILY(pairs){
#include "pairs.def"
}

FAMILY(sampled){
#include "sampled.def"
}

FAMILY(elsewhere){
#include "elsewhere.def"
}

FAMILY(caching){
#include "caching.def"
}

FAMILY(crossing){
#include "crossing.def"
}

FAMILY(width){
#include "width.def"
}

FAMILY(addresses){
#include "addresses.def"
}

FAMILY(pdpte){
#include "pdpte.def"
}

FAMILY(delivery){
#include "delivery.def"
}

FAMILY(toggles)
{
#include "toggles.def"
}

void suite_rows(struct suite *suite)
{
	static struct cell cell;

	cell.suite = suite;
	product(&cell);
	unusable(&cell);
	pairs(&cell);
	sampled(&cell);
	elsewhere(&cell);
	caching(&cell);
	width(&cell);
	addresses(&cell);
	pdpte(&cell);
	delivery(&cell);
	toggles(&cell);
	crossing(&cell);
	product_inventory(suite);
}
