/* See network.h. Linux tells file systems by numbers (statfs(2)); those of the kernel's headers and
 * of the file systems that have their own. */
#include "store/network.h"

#include <errno.h>
#include <string.h>
#include <sys/vfs.h>

#include "base/error.h"

typedef struct kind {
    uint32_t number;
    const char *name;
    bool perhaps; /* it may as well be local */
} kind;

static const kind kinds[] = {
    {0x6969, "NFS", false},      {0x517b, "SMB", false},        {0xfe534d42, "SMB", false},
    {0xff534d42, "CIFS", false}, {0x5346414f, "AFS", false},    {0x6b414653, "AFS", false},
    {0x00c36400, "Ceph", false}, {0x0bd00bd0, "Lustre", false}, {0x47504653, "GPFS", false},
    {0x01161970, "GFS2", false}, {0x7461636f, "OCFS2", false},  {0x73757245, "Coda", false},
    {0x0000564c, "NCP", false},  {0x19830326, "BeeGFS", false}, {0x65735546, "FUSE", true},
    {0x01021997, "9P", true},
};

/* NULL: a local one, or one that is not known. */
static const kind *kind_of(const char *path)
{
    struct statfs found;
    char *folder = escqrs_strdup(escqrs_slice_of(path));
    const kind *known = NULL;
    if (folder == NULL) {
        return NULL;
    }
    char *slash = strrchr(folder, '/');
    if (slash != NULL) {
        slash[slash == folder] = '\0';
        if (statfs(folder, &found) == 0) {
            for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
                known = (uint32_t)found.f_type == kinds[i].number ? &kinds[i] : known;
            }
        }
    }
    escqrs_free(folder);
    return known;
}

escqrs_status esc_network_check(const char *path, const escqrs_log *log, escqrs_error *error)
{
    const kind *known = kind_of(path);
    if (known == NULL) {
        return ESCQRS_OK;
    }
    if (known->perhaps) {
        escqrs_log_write(log, ESCQRS_LOG_WARNING,
                         "%s lies on a %s file system: if that is another machine's, the store may "
                         "be used from this one alone",
                         path, known->name);
        return ESCQRS_OK;
    }
    return esc_error_system(
        error, ESCQRS_IO, ENOTSUP,
        "%s lies on a network file system (%s), whose locks and memory are not "
        "the same for all machines: keep the store on a local disk, and copy it "
        "there with backup",
        path, known->name);
}
