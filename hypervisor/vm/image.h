/*
 * image.h: the file that a guest is in, read whole, with everything that is read from
 * it checked first: files are damaged, foreign or hostile until proved otherwise.
 */
#ifndef TRAPLINE_VM_IMAGE_H
#define TRAPLINE_VM_IMAGE_H

#include "vm/span.h"

#define IMAGE_SIZE_MAX     (256u << 20)
#define IMAGE_SEGMENTS_MAX 64

/* A PT_LOAD program header. */
struct image_segment {
	uint64_t offset, file_size; /* in the file */
	uint64_t address, size;     /* guest-physical; what is not in the file is zeros */
};

enum image_kind {
	IMAGE_FLAT, /* no ELF file */
	IMAGE_ELF32,
	IMAGE_ELF64
};

struct image {
	const char *path; /* borrowed */
	uint8_t *data;
	size_t size;
	enum image_kind kind;
	uint64_t entry;   /* e_entry, as a guest-physical address */
	bool entry_moved; /* it has been found in a segment */
	unsigned segment_count;
	struct image_segment segment[IMAGE_SEGMENTS_MAX]; /* by address, disjoint */
	bool has_pvh;
	uint32_t pvh_entry;      /* XEN_ELFNOTE_PHYS32_ENTRY */
	struct span cases;       /* the case section, {NULL, 0} without one */
	char digest[7 + 64 + 1]; /* sha256:… of the file */
};

/*
 * Reads and checks @path. 0, or a negative errno with @why (of @size bytes) giving the reason without
 * the file's name: -EINVAL for what is in the file, others for what the system said. image_close() frees.
 */
int image_open(struct image *image, const char *path, char *why, size_t size);
void image_close(struct image *image);

/* Reads a whole file of at most @max bytes; the same errors. *@data is the caller's to free. */
int image_read_file(const char *path, size_t max, uint8_t **data, size_t *length, char *why, size_t size);

#endif
