/* Memory beyond escqrs_alloc and escqrs_free of base.h. */
#ifndef ESC_BASE_ALLOC_H
#define ESC_BASE_ALLOC_H

/* Much was freed: give it back to the operating system, where the C library would keep it. Any
 * thread; some 50 ms for 250 MB. */
void esc_alloc_trim(void);

#endif
