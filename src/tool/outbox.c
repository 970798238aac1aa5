/*
 * outbox: see outbox.h.
 */
#include "tool/outbox.h"

#include <stdlib.h>

#include "tool/tool.h"

void
outbox_open(struct outbox *outbox, struct input *input)
{
	*outbox = (struct outbox){.input = input};
	outbox->items = tool_alloc(OUTBOX_MOST * sizeof *outbox->items);
}

void
outbox_close(struct outbox *outbox)
{
	free(outbox->items);
}

int
outbox_at(struct outbox *outbox, size_t number, struct outbox_item **item)
{
	int result;

	while (number >= outbox->count) {
		struct outbox_item *next = &outbox->items[outbox->count];

		if (outbox->drained || outbox->count == OUTBOX_MOST)
			return 0;
		*next = (struct outbox_item){0};
		result = input_next(outbox->input, &next->item);
		if (result == -1)
			return -1;
		if (result == 0) {
			outbox->drained = true;
			return 0;
		}
		outbox->count++;
	}
	*item = &outbox->items[number];
	return 1;
}

void
outbox_done(struct outbox *outbox, struct outbox_item *item, bool accepted)
{
	item->done = true;
	if (accepted)
		outbox->accepted++;
	else
		outbox->rejected++;
	outbox->bytes += item->item.size;
}

size_t
outbox_compact(struct outbox *outbox, size_t most)
{
	size_t from, to = 0;

	if (most > outbox->count)
		most = outbox->count;
	for (from = 0; from < outbox->count; from++)
		if (from >= most || !outbox->items[from].done)
			outbox->items[to++] = outbox->items[from];
	outbox->count = to;
	return from - to;
}

int
outbox_is_empty(struct outbox *outbox)
{
	struct outbox_item *item;
	int result = outbox_at(outbox, 0, &item);

	return result == -1 ? -1 : result == 0;
}
