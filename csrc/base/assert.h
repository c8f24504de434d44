/* ESC_ASSERT: a check that stays in every build, for errors of the programmer of escqrs alone.
 * Input, disk content, memory and peers are answered with a status instead. */
#ifndef ESC_BASE_ASSERT_H
#define ESC_BASE_ASSERT_H

/* Prints where and what to stderr and aborts. Any thread. */
_Noreturn void esc_assert_failed(const char *file, int line, const char *condition);

#define ESC_ASSERT(condition)                                                                      \
    (__builtin_expect(!!(condition), 1) /* the usual way first */                                  \
         ? (void)0                                                                                 \
         : esc_assert_failed(__FILE__, __LINE__, #condition))

#endif
