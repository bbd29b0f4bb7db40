#pragma once
#include "criterion.h"
