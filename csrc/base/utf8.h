/* UTF-8: what is valid, and where it may be cut. */
#ifndef ESC_BASE_UTF8_H
#define ESC_BASE_UTF8_H

#include <escqrs/base.h>

/* True for well-formed UTF-8 (RFC 3629): no overlong forms, surrogates or values above U+10FFFF. */
bool esc_utf8_valid(escqrs_slice text);

/* The longest prefix of `text`, at most `limit` bytes, that splits no character; its size. */
size_t esc_utf8_cut(escqrs_slice text, size_t limit);

#endif
