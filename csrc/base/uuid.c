/* Version 7 UUIDs: 48 bits of milliseconds, 4 of version, 74 of randomness around 2 of variant.
 *
 * Within one thread each is greater than the one before: where the millisecond has not moved on (or
 * the clock went back) the 74 bits go up by a random step instead of being drawn anew (method 2
 * of RFC 9562, section 6.2). The last one and a stock of random bytes are thread-local, so making
 * one takes no lock and rarely a system call; a child of fork() throws the stock away, for its
 * parent has the same.
 *
 * With a replaced `random` there is no memory from one call to the next: an id is made of the given
 * clock and the given randomness alone, so that a seed gives the same ids again. Their order is
 * then the test's affair. */
#include <escqrs/base.h>

#include <string.h>

#define STOCK_SIZE 512

typedef struct last_id {
    uint64_t time_ms;
    uint64_t high; /* 12 bits: rand_a */
    uint64_t low;  /* 62 bits: rand_b */
} last_id;

typedef struct thread_state {
    last_id last; /* by the system's clock */
    last_id
        replaced; /* by the clock below, so that a test's time does not meddle with the real one */
    void *replaced_clock; /* its context */
    int64_t (*replaced_now)(void *);
    unsigned generation; /* of fork, when the stock was filled */
    size_t stock_left;
    uint8_t stock[STOCK_SIZE];
} thread_state;

static _Thread_local thread_state local;

#define HIGH_MASK UINT64_C(0xfff)
#define LOW_MASK UINT64_C(0x3fffffffffffffff)

static void stock_take(void *buffer, size_t size)
{
    thread_state *state = &local;
    unsigned generation = escqrs_fork_generation();
    if (state->stock_left < size || state->generation != generation) {
        escqrs_random_fill(NULL, state->stock, sizeof state->stock);
        state->stock_left = sizeof state->stock;
        state->generation = generation;
    }
    state->stock_left -= size;
    memcpy(buffer, state->stock + state->stock_left, size);
    /* what is out is nobody's any more */
    memset(state->stock + state->stock_left, 0, size);
}

static last_id id_draw(uint64_t time_ms, const uint8_t random[10])
{
    last_id id = {.time_ms = time_ms};
    uint16_t high = 0;
    memcpy(&high, random, sizeof high);
    memcpy(&id.low, random + sizeof high, sizeof id.low);
    id.high = high & HIGH_MASK;
    id.low &= LOW_MASK;
    return id;
}

/* The next one after `last` in the same millisecond. */
static last_id id_step(last_id last)
{
    uint32_t step = 0;
    stock_take(&step, sizeof step);
    last.low += (uint64_t)step + 1;
    if (last.low > LOW_MASK) {
        last.low &= LOW_MASK;
        last.high++;
        if (last.high > HIGH_MASK) { /* all 74 bits used up: borrow the next millisecond */
            last.high = 0;
            last.time_ms++;
        }
    }
    return last;
}

static last_id *last_of(const escqrs_clock *clock)
{
    thread_state *state = &local;
    if (clock == NULL || clock->now_us == NULL) {
        return &state->last;
    }
    if (state->replaced_clock != clock->context || state->replaced_now != clock->now_us) {
        state->replaced = (last_id){0};
        state->replaced_clock = clock->context;
        state->replaced_now = clock->now_us;
    }
    return &state->replaced;
}

static escqrs_uuid id_pack(last_id id)
{
    escqrs_uuid uuid;
    for (int i = 0; i < 6; i++) {
        uuid.bytes[i] = (uint8_t)(id.time_ms >> (40 - 8 * i));
    }
    uuid.bytes[6] = (uint8_t)(0x70 | id.high >> 8); /* version 7 */
    uuid.bytes[7] = (uint8_t)id.high;
    uint64_t tail = UINT64_C(1) << 63 | id.low; /* variant 10 */
    for (int i = 0; i < 8; i++) {
        uuid.bytes[8 + i] = (uint8_t)(tail >> (56 - 8 * i));
    }
    return uuid;
}

escqrs_uuid escqrs_uuid_new(const escqrs_clock *clock, const escqrs_random *random)
{
    int64_t now_us = escqrs_clock_now_us(clock);
    uint64_t time_ms = now_us > 0 ? (uint64_t)now_us / 1000 : 0;
    uint8_t bytes[10];
    if (random != NULL && random->fill != NULL) {
        random->fill(random->context, bytes, sizeof bytes);
        return id_pack(id_draw(time_ms, bytes));
    }
    last_id *last = last_of(clock);
    if (time_ms > last->time_ms) {
        stock_take(bytes, sizeof bytes);
        *last = id_draw(time_ms, bytes);
    } else {
        *last = id_step(*last);
    }
    return id_pack(*last);
}

bool escqrs_uuid_is_nil(const escqrs_uuid *uuid)
{
    static const escqrs_uuid nil;
    return memcmp(uuid, &nil, sizeof nil) == 0;
}

static bool is_dash(size_t index)
{
    return index == 8 || index == 13 || index == 18 || index == 23;
}

void escqrs_uuid_format(const escqrs_uuid *uuid, char text[ESCQRS_UUID_TEXT_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    size_t at = 0;
    for (size_t i = 0; i < sizeof uuid->bytes; i++) {
        if (is_dash(at)) {
            text[at++] = '-';
        }
        text[at++] = digits[uuid->bytes[i] >> 4];
        text[at++] = digits[uuid->bytes[i] & 15];
    }
    text[at] = '\0';
}

static int digit_value(char digit)
{
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    if (digit >= 'a' && digit <= 'f') {
        return digit - 'a' + 10;
    }
    if (digit >= 'A' && digit <= 'F') {
        return digit - 'A' + 10;
    }
    return -1;
}

bool escqrs_uuid_parse(escqrs_slice text, escqrs_uuid *uuid)
{
    const char *characters = text.data;
    escqrs_uuid result;
    size_t count = 0;
    if (text.size != ESCQRS_UUID_TEXT_SIZE - 1) {
        return false;
    }
    for (size_t at = 0; at < text.size;) {
        if (is_dash(at)) {
            if (characters[at++] != '-') {
                return false;
            }
            continue;
        }
        int high = digit_value(characters[at]);
        int low = digit_value(characters[at + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        result.bytes[count++] = (uint8_t)(high << 4 | low);
        at += 2;
    }
    *uuid = result;
    return true;
}
