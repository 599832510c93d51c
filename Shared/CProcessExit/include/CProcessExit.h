#ifndef CPROCESSEXIT_H
#define CPROCESSEXIT_H

/* Whether libcrypto keeps its state until the kernel ends the process, as this module arranges before main(). */
int cprocessexit_keeps_libcrypto(void);

#endif
