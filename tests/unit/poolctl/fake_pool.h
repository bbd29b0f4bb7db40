/* fake_pool.h: see fake_pool.c. */
#pragma once

#include "fake_controller.h"

void fake_pool_make(void);
/* The usual answer to @request, which is the last one for it. */
void fake_pool_answer(const Vmpool__AdminRequest *request, Vmpool__AdminReply *reply);
