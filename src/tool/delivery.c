/*
 * delivery: see delivery.h.
 *
 * One loop: read what there is, write what goes, wait for either.  Receipts are read
 * while messages are still being written, or both sides would wait for each other.
 */
#include "tool/delivery.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/clock.h"
#include "config/types.h"
#include "tool/envelope.h"
#include "tool/receipt.h"
#include "tool/tool.h"

#define OUT_SIZE 65536
#define OUT_SPARE 2048 /* for a head and a tail */
#define FAREWELL (2 * TYPES_SECOND) /* to wait for a close that changes nothing any more */

struct delivery {
	const struct delivery_options *options;
	struct outbox *outbox;
	struct progress *progress;
	struct delivery_result *result;
	struct link link;
	/* Of the outbox's items, on this connection */
	size_t begun;
	size_t told; /* the first of them, that have their receipts */
	uint64_t total; /* begun, with what the outbox has forgotten since */
	/* The one being sent: the last that was begun */
	bool open;
	uint64_t sent;
	bool stop;     /* begin no more */
	bool retry;    /* a RETRY has come */
	bool cut;      /* an answer came for a message that was not all sent */
	bool useless;  /* what was behind the last receipt's message was not looked at */
	bool full;     /* the next message waits for receipts */
	bool finished; /* we have closed our side */
	bool over;     /* the result is set */
	char reason[RECEIPT_REASON_MAX + 1]; /* of that RETRY */
	size_t line_len;
	char line[RECEIPT_LINE_MAX];
	size_t out_at;
	size_t out_len;
	unsigned char out[OUT_SIZE + OUT_SPARE];
};

static void __attribute__((format(printf, 4, 5)))
conclude(struct delivery *delivery, enum delivery_verdict verdict, int code, const char *format,
	 ...)
{
	struct delivery_result *result = delivery->result;
	va_list arguments;

	if (delivery->over)
		return;
	delivery->over = true;
	result->verdict = verdict;
	result->code = code;
	va_start(arguments, format);
	vsnprintf(result->why, sizeof result->why, format, arguments);
	va_end(arguments);
}

/* Without the receipts (or the close) for what was begun. */
static void
lost(struct delivery *delivery, const char *why)
{
	if (delivery->options->receipt && delivery->told == delivery->begun && delivery->total > 0) {
		if (delivery->retry)
			conclude(delivery, DELIVERY_TEMPORARY, EX_TEMPFAIL, "told to try again: %s",
				 delivery->reason);
		else
			conclude(delivery, DELIVERY_GONE_WELL, 0, "%s", why);
		return;
	}
	if (delivery->useless) {
		/* Behind a rejection that ends the connection nothing is looked at. */
		conclude(delivery, DELIVERY_GONE_WELL, 0, "%s", why);
		return;
	}
	delivery->result->unknown =
		delivery->begun > delivery->told &&
		(delivery->finished || delivery->options->framing.kind != FRAMING_EOF);
	conclude(delivery, DELIVERY_TEMPORARY, EX_TEMPFAIL, "%s%s", why,
		 delivery->options->receipt ? " before the receipt came" : "");
}

static void
rejected(struct delivery *delivery, struct outbox_item *item, const char *reason)
{
	char *name = input_name(delivery->outbox->input, &item->item);

	progress_clear(delivery->progress);
	tool_complain("%s: rejected: %s", name, reason);
	free(name);
	outbox_done(delivery->outbox, item, false);
}

/* Whether the size in a receipt is that of the message as the daemon counts it. */
static bool
is_size(const struct delivery *delivery, const struct outbox_item *item, uint64_t size)
{
	const struct framing_config *framing = &delivery->options->framing;

	if (size == item->item.arrives)
		return true;
	/* With keep_delimiter. */
	return framing->kind == FRAMING_DELIMITER &&
	       size == item->item.arrives + framing->delimiter_len;
}

static void
take_receipt(struct delivery *delivery)
{
	struct receipt receipt;
	struct outbox_item *item;
	bool partial;

	if (!receipt_parse(delivery->line, delivery->line_len, &receipt)) {
		conclude(delivery, DELIVERY_FINAL, EX_PROTOCOL,
			 "\"%.*s\" came where a receipt was expected (has the listener "
			 "reply = \"receipt\"?)", (int)delivery->line_len, delivery->line);
		return;
	}
	delivery->result->spoken = true;
	if (delivery->told == delivery->begun) {
		/* A listener in trouble may speak to a client that has sent nothing. */
		if (receipt.kind == RECEIPT_OK)
			conclude(delivery, DELIVERY_FINAL, EX_PROTOCOL,
				 "a receipt came for a message that was not sent; do both sides "
				 "use the same framing?");
		else if (receipt.kind == RECEIPT_RETRY)
			conclude(delivery, DELIVERY_TEMPORARY, EX_TEMPFAIL, "told to try again: %s",
				 receipt.reason);
		else
			conclude(delivery, DELIVERY_FINAL, EX_DATAERR, "rejected: %s", receipt.reason);
		return;
	}
	item = &delivery->outbox->items[delivery->told++];
	partial = delivery->open && delivery->told == delivery->begun;
	delivery->cut = delivery->cut || partial;
	delivery->useless = receipt_ends(&receipt);
	delivery->stop = delivery->stop || delivery->useless;
	if (receipt.kind == RECEIPT_RETRY) {
		delivery->retry = delivery->stop = true;
		memcpy(delivery->reason, receipt.reason, sizeof receipt.reason);
	} else if (receipt.kind == RECEIPT_REJECT) {
		rejected(delivery, item, receipt.reason);
	} else if (partial || !is_size(delivery, item, receipt.size)) {
		char *name = input_name(delivery->outbox->input, &item->item);

		conclude(delivery, DELIVERY_FINAL, EX_PROTOCOL,
			 "%s: %llu bytes were accepted (%s), not its %llu; do both sides use the "
			 "same framing?", name, (unsigned long long)receipt.size, receipt.id,
			 (unsigned long long)item->item.arrives);
		free(name);
	} else {
		outbox_done(delivery->outbox, item, true);
		if (delivery->options->print_ids)
			printf("%s\n", receipt.id);
	}
}

static void
take_bytes(struct delivery *delivery, const char *bytes, size_t len)
{
	const char *end = bytes + len;

	for (; bytes < end && !delivery->over && !delivery->cut; bytes++) {
		if (*bytes == '\n') {
			take_receipt(delivery);
			delivery->line_len = 0;
		} else if (delivery->line_len == sizeof delivery->line) {
			conclude(delivery, DELIVERY_FINAL, EX_PROTOCOL,
				 "what came back is no receipt (has the listener "
				 "reply = \"receipt\"?)");
		} else {
			delivery->line[delivery->line_len++] = *bytes;
		}
	}
	if (delivery->options->print_ids)
		fflush(stdout);
}

/* The other side has closed in order. */
static void
take_end(struct delivery *delivery)
{
	size_t i;

	if (delivery->options->receipt) {
		/* It may be that nobody gives any there; or else it died right then. */
		delivery->result->silent = delivery->finished && delivery->told == 0 &&
					   delivery->begun > 0 && delivery->line_len == 0;
		lost(delivery, "the connection was closed");
		return;
	}
	if (!delivery->finished) {
		lost(delivery, "the connection was closed before all was sent");
		return;
	}
	if (!link_is_settled(&delivery->link)) {
		lost(delivery, delivery->link.why);
		return;
	}
	for (i = 0; i < delivery->begun; i++)
		outbox_done(delivery->outbox, &delivery->outbox->items[i], true);
	conclude(delivery, DELIVERY_GONE_WELL, 0, "accepted");
}

/* Reads all there is.  Whether anything was. */
static bool
read_all(struct delivery *delivery)
{
	char bytes[4096];
	bool some = false;
	ssize_t n = 1;

	while (!delivery->over && !delivery->cut && n > 0) {
		n = link_read(&delivery->link, bytes, sizeof bytes);
		some = some || n > 0;
		if (n > 0 && delivery->options->receipt)
			take_bytes(delivery, bytes, (size_t)n);
		else if (n == 0)
			take_end(delivery);
		else if (n == LINK_FAILED)
			lost(delivery, delivery->link.why);
	}
	return some;
}

/* Whether there is a next message for this connection; then it is begun. */
static bool
begin(struct delivery *delivery)
{
	const struct delivery_options *options = delivery->options;
	struct outbox *outbox = delivery->outbox;
	struct outbox_item *item;
	size_t len;
	int result;

	delivery->full = false;
	if (delivery->stop ||
	    (options->per_connection != 0 && delivery->total >= options->per_connection))
		return false;
	/* Where there are receipts there will be room again. */
	if (delivery->begun == OUTBOX_MOST && options->receipt) {
		size_t gone = outbox_compact(outbox, delivery->told);

		delivery->begun -= gone;
		delivery->told -= gone;
		delivery->full = gone == 0;
		if (delivery->full)
			return false;
	}
	result = outbox_at(outbox, delivery->begun, &item);
	if (result == -1)
		conclude(delivery, DELIVERY_FINAL, outbox->input->code, "nothing more was sent");
	if (result != 1)
		return false;
	if (envelope_head(&options->framing, item->item.size, delivery->out + delivery->out_len,
			  &len) != NULL)
		len = 0; /* cannot be: it was looked at */
	delivery->out_len += len;
	delivery->begun++;
	delivery->total++;
	delivery->open = true;
	delivery->sent = 0;
	return true;
}

/* Puts together what is to be written next. */
static void
fill(struct delivery *delivery)
{
	const struct framing_config *framing = &delivery->options->framing;
	const unsigned char *tail;
	size_t len;
	ssize_t n;

	delivery->out_at = delivery->out_len = 0;
	while (!delivery->over && delivery->out_len < OUT_SIZE && (delivery->open || begin(delivery))) {
		const struct input_item *item = &delivery->outbox->items[delivery->begun - 1].item;

		if (delivery->sent < item->size && delivery->out_len >= OUT_SIZE)
			break;
		if (delivery->sent < item->size) {
			n = input_read(delivery->outbox->input, item, delivery->sent,
				       delivery->out + delivery->out_len, OUT_SIZE - delivery->out_len);
			if (n == -1) {
				conclude(delivery, DELIVERY_FINAL, delivery->outbox->input->code,
					 "nothing more was sent");
				return;
			}
			delivery->out_len += (size_t)n;
			delivery->sent += (uint64_t)n;
			if (delivery->sent < item->size || delivery->out_len >= OUT_SIZE)
				continue;
		}
		len = envelope_tail(framing, &tail);
		memcpy(delivery->out + delivery->out_len, tail, len);
		delivery->out_len += len;
		delivery->open = false;
	}
}

/* Writes until the socket takes no more.  Whether it took anything. */
static bool
write_all(struct delivery *delivery)
{
	bool some = false;
	ssize_t n;

	while (!delivery->over && !delivery->finished) {
		if (delivery->out_at == delivery->out_len)
			fill(delivery);
		if (delivery->over)
			break;
		if (delivery->out_at == delivery->out_len) {
			if (delivery->full)
				break;
			n = link_finish(&delivery->link);
			delivery->finished = n == 0;
		} else {
			n = link_write(&delivery->link, delivery->out + delivery->out_at,
				       delivery->out_len - delivery->out_at);
			if (n > 0)
				delivery->out_at += (size_t)n;
		}
		if (n == LINK_FAILED) {
			/* The answers that came before it lost its life may still lie there. */
			char why[LINK_WHY_MAX];

			memcpy(why, delivery->link.why, sizeof why);
			read_all(delivery);
			if (!delivery->cut)
				lost(delivery, why);
		}
		if (n < 0)
			break;
		some = true;
		if (n > 0 && delivery->progress->on)
			break; /* to draw */
	}
	return some;
}

static void
show(struct delivery *delivery)
{
	char *name;

	if (!delivery->progress->on || delivery->begun == 0)
		return;
	name = input_name(delivery->outbox->input,
			  &delivery->outbox->items[delivery->begun - 1].item);
	progress_show(delivery->progress, name, delivery->outbox->bytes + delivery->sent,
		      delivery->outbox->input->bytes);
	free(name);
}

static bool
has_all_receipts(const struct delivery *delivery)
{
	return delivery->options->receipt && delivery->finished &&
	       delivery->told == delivery->begun;
}

static void
run(struct delivery *delivery)
{
	uint64_t heard = clock_now(), now, quiet, most;

	while (!delivery->over) {
		bool some = read_all(delivery);
		short events = 0;
		int n = 0;

		if (delivery->cut && !delivery->over) {
			/* The rest of it is not wanted: our close is a reset. */
			delivery->begun = delivery->told;
			lost(delivery, "the rest was not wanted");
			break;
		}
		some = write_all(delivery) || some;
		if (delivery->over || delivery->cut)
			continue;
		show(delivery);
		now = clock_now();
		if (some)
			heard = now;
		most = has_all_receipts(delivery) ? FAREWELL : delivery->options->timeout;
		quiet = now - heard;
		if (most == 0 || quiet < most) {
			events = delivery->link.wants_read;
			if (!delivery->finished && !delivery->full)
				events = (short)(events | delivery->link.wants_write);
			n = link_wait(&delivery->link, events, most == 0 ? 0 : most - quiet);
		}
		if (n == -1)
			conclude(delivery, DELIVERY_FINAL, EX_OSERR, "%s", delivery->link.why);
		else if (n == 0)
			lost(delivery, "nothing happened for too long (--timeout)");
	}
}

void
delivery_run(const struct delivery_options *options, struct outbox *outbox,
	     struct progress *progress, struct delivery_result *result)
{
	struct delivery *delivery = tool_alloc(sizeof *delivery);
	int code;

	*result = (struct delivery_result){0};
	delivery->options = options;
	delivery->outbox = outbox;
	delivery->progress = progress;
	delivery->result = result;
	code = link_open(&delivery->link, &options->target, &options->tls, options->timeout);
	if (code != 0) {
		conclude(delivery,
			 delivery->link.temporary ? DELIVERY_TEMPORARY : DELIVERY_FINAL, code, "%s",
			 delivery->link.why);
	} else {
		run(delivery);
		link_close(&delivery->link);
	}
	outbox_compact(outbox, SIZE_MAX);
	free(delivery);
}
