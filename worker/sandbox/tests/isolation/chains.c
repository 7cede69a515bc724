/* Forks generation after generation, each of which ends at once, and says by a file that it began. One chain alone has a
   processor for itself, and is harder to catch than many. */
#include <fcntl.h>
#include <unistd.h>

int main(void) {
    if (fork() == 0) {
        for (;;) {
            if (fork() > 0) _exit(0);
        }
    }
    close(open("grown", O_CREAT | O_WRONLY, 0600));
    for (;;) pause();
}
