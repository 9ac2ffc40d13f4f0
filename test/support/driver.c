// A Vulkan driver that never works, for tests: it dies, or refuses, where the loader first calls it.
#include <stdlib.h>
#include <string.h>

static int refuse(const void *info, const void *allocator, void **instance) {
  return -3; // VK_ERROR_INITIALIZATION_FAILED
}

int vk_icdNegotiateLoaderICDInterfaceVersion(unsigned *version) {
  *version = 2;
#ifdef DIES
  abort();
#endif
  return 0;
}

void *vk_icdGetInstanceProcAddr(void *instance, const char *name) {
  return strcmp(name, "vkCreateInstance") == 0 ? (void *)refuse : NULL;
}
